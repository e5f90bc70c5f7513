"""The history of a registered model's champions, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from tuning.common.promotion_types import ChampionChange


def history_table(name: str, events: Sequence[ChampionChange]) -> Table:
    """Return a row for each change of the champion, first to last."""
    table = Table(title=f"Champions of {name}", title_justify="left", title_style="bold", box=None)
    for column in ("when (UTC)", "version", "before", "how"):
        table.add_column(column, no_wrap=True)
    table.add_column("why", overflow="fold")
    for event in events:
        before = "-" if event.previous is None else str(event.previous)
        table.add_row(event.at.partition("+")[0], str(event.version), before, event.kind, event.reason)
    return table


def alias_lines(name: str, events: Sequence[ChampionChange], holders: Mapping[str, int | None]) -> list[str]:
    """Return who has each alias now, and whether that is what the history says."""
    lines = [
        f"models:/{name}@{alias}: {'nobody' if version is None else f'version {version}'}"
        for alias, version in holders.items()
    ]
    last, champion = (events[-1].version if events else None), holders.get("champion")
    if champion != last:
        was = "nobody" if last is None else f"version {last}"
        lines.append(f"the alias champion was moved by hand: {was} got it here last")
    return lines
