"""``python -m tuning``: one short module for each command, imported only when it is called.

A command's module has ``LIMIT_OPTIONS``, the value that its options make; ``EXAMPLE``, a command that can be copied; and
``run(arguments) -> int``, which returns the exit status.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Protocol, cast

from pydantic import BaseModel

from tuning.cli.parser import format_help

SUMMARIES = {
    "tune": "search for the best fine-tune of a classifier for a folder of pictures, and register it",
    "resume": "go on with a search that was ended or killed, or make a finished one longer",
    "train": "train one configuration, or that of a finished trial again",
    "evaluate": "measure a packaged model on pictures",
    "promote": "decide whether a packaged model becomes champion",
    "rollback": "give the alias back to the champion before",
    "champions": "show who was champion after whom, and why",
    "predict": "classify pictures with a packaged model",
    "sync": "deliver to MLflow what a search could not: metrics, files, the model and its decision",
    "compare": "compare what searches reached, with which network, in which time",
    "audit": "say what is wrong with a data set, file by file, before any training",
    "blocks": "show where a network can be frozen or truncated, and what each block costs",
    "cache": "show or clear what is kept on disk to be used again",
}


class Command(Protocol):
    """What a command's module holds."""

    OPTIONS: type[BaseModel]
    EXAMPLE: str

    def run(self, arguments: Sequence[str]) -> int:
        """Run the command and return its exit status."""


def load(name: str) -> Command:
    """Return the module of the command ``name``."""
    return cast(Command, importlib.import_module(f"tuning.cli.{name}"))


def overview() -> str:
    """Return what ``python -m tuning --help`` prints."""
    width = max(map(len, SUMMARIES))
    listed = "\n".join(f"  {name.ljust(width)}  {summary}" for name, summary in SUMMARIES.items())
    return (
        "usage: python -m tuning COMMAND [--name value ...]\n\n"
        "Find the best fine-tune of a pretrained image classifier for your own pictures.\n\n"
        f"commands:\n{listed}\n\npython -m tuning COMMAND --help shows a command's options and an example."
    )


def page(name: str) -> str:
    """Return what ``python -m tuning NAME --help`` prints."""
    command = load(name)
    return (
        f"usage: python -m tuning {name} [--name value ...]\n\n{SUMMARIES[name]}\n\n"
        f"options (name, type, default):\n{format_help(command.OPTIONS)}\n\nexample:\n  {command.EXAMPLE}"
    )
