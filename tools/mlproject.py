"""What MLproject has to say, worked out from the commands' own options.

``python -m tools.mlproject > MLproject`` writes it anew after an option has changed.
"""

from __future__ import annotations

from tuning import cli
from tuning.cli.parser import default_text, type_text
from tuning.recipe.options import option_fields

HEAD = """\
# The same commands as python -m tuning COMMAND, for mlflow run:
#
#   mlflow run . -e tune --env-manager local -P data=photos/ -P trials=20
#
# A parameter left empty takes the default that stands behind it. Types and limits are checked by the command, which
# MLflow can't, so all are strings here; python -m tuning COMMAND --help says more.
# Written by python -m tools.mlproject from the commands' options; a test holds the two together.
name: freezeline

conda_env: conda.yaml

entry_points:
"""


def entry(name: str, command: str) -> str:
    """Return the entry point ``name`` that runs ``command``."""
    options = option_fields(cli.load(command).OPTIONS)
    lines = [f"  # {cli.SUMMARIES[command]}", f"  {name}:", "    parameters:"]
    for option, field in options.items():
        default = "(required)" if field.is_required() else default_text(field)
        given = "demo" if option == "data" else ""
        head = f'      {option}: {{type: string, default: "{given}"}}'
        lines.append(f"{head}  # {type_text(field)}, {default}: {field.description}")
    lines.append("    command: >-")
    lines.append(f"      python -m tuning {command}")
    lines += [f"      --{option} {{{option}}}" for option in options]
    return "\n".join(lines) + "\n"


def text() -> str:
    """Return the whole file; ``mlflow run .`` without an entry point tunes."""
    entries = {"main": "tune", **{name: name for name in cli.SUMMARIES}}
    return HEAD + "\n".join(entry(name, command) for name, command in entries.items())


if __name__ == "__main__":
    print(text(), end="")
