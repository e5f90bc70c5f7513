"""What docs/reference.md has to say, worked out from the commands' own options.

``python -m tools.reference > docs/reference.md`` writes it anew after an option has changed.
"""

from __future__ import annotations

from tuning import cli
from tuning.cli.parser import default_text, type_text
from tuning.recipe.options import option_fields
from tuning.recipe.schema import VARIANT_FIELDS

HEAD = """\
# Every option of every command

Written by `python -m tools.reference > docs/reference.md` from the commands' own options; a test holds the two
together. `python -m tuning COMMAND --help` shows the same.

Every option takes a value, is read with `-` or `_` alike, and is the same left out as given empty. `mlflow run . -e
COMMAND -P name=value` and `python -m tuning COMMAND --name value` mean the same; all commands can be called both ways.
A type `value(s)` is a setting that is searched: one value (`lr=1e-3`), several (`optimizer=adam,adamw`) or, for
numbers, a range (`freeze_fraction=0.5..1`); `train` takes what a search would try first. What a variant of a
[recipe](recipes.md) may set is marked with °.
"""


def section(command: str) -> str:
    """Return the section of ``command``: what it does, an example, and a row for each option."""
    module = cli.load(command)
    rows = ["| option | type | default | |", "| --- | --- | --- | --- |"]
    for option, field in option_fields(module.OPTIONS).items():
        mark = "°" if command == "tune" and option in VARIANT_FIELDS else ""
        cells = (f"`{option}`{mark}", type_text(field), _default(default_text(field)), field.description or "")
        rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    example = f"<!-- parsed: each command has tests of its own -->\n```bash\n{module.EXAMPLE}\n```"
    return "\n\n".join((f"## {command}", f"{cli.SUMMARIES[command].capitalize()}.", example, "\n".join(rows)))


def _default(text: str) -> str:
    return text if text in {"-", "(required)"} else f"`{text}`"


def text() -> str:
    """Return the whole page."""
    return "\n".join((HEAD, *(f"{section(command)}\n" for command in cli.SUMMARIES)))


if __name__ == "__main__":
    print(text(), end="")
