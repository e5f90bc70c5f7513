"""A table of texts, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True)
class TextTable:
    """A table that rich prints without lines and, if the title is empty, without one; numbers are right-aligned."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: Collection[str] = ()
    wrapped: Collection[str] = ()

    def __rich__(self) -> Table:
        table = Table(
            title=self.title or None, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0)
        )
        for name in self.columns:
            justify = "left" if name in self.text_columns else "right"
            table.add_column(name, justify=justify, no_wrap=name not in self.wrapped, overflow="fold")  # type: ignore[arg-type]
        for row in self.rows:
            table.add_row(*row)
        return table

    def to_markdown(self) -> str:
        """Return the title and the table as Markdown."""
        lines = (self.columns, ["---"] * len(self.columns), *self.rows)
        return f"\n**{self.title}**\n\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
