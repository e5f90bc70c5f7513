"""The commands of ``python -m tuning``: one short module each, imported only when the command is called.

The module of a command defines ``OPTIONS``, the model of its options; ``EXAMPLE``, a command to copy; and
``run(arguments, mlflow_run_id) -> int``, which returns the exit status.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Protocol, cast

from pydantic import BaseModel

from tuning.cli.parser import format_help

SUMMARIES = {
    "tune": "search for the best fine-tune of a classifier for a folder of images, and register it",
    "resume": "continue an interrupted search, or extend a finished one",
    "train": "train one configuration, or again that of a finished trial or a registered version",
    "evaluate": "evaluate a packaged model on images",
    "promote": "decide whether a packaged model becomes champion",
    "rollback": "restore the previous champion",
    "champions": "show the history of champions with reasons",
    "predict": "classify images with a packaged model",
    "sync": "deliver queued data to MLflow: metrics, files, the model and its promotion",
    "compare": "compare searches by score, network and time",
    "audit": "report problems of a data set file by file, before training",
    "blocks": "list the blocks at which a network can be frozen or truncated, with their cost",
    "cache": "show or clear the cached pixels and features on disk",
}


class Command(Protocol):
    """The interface of a command's module."""

    OPTIONS: type[BaseModel]
    EXAMPLE: str

    def run(self, arguments: Sequence[str], mlflow_run_id: str | None) -> int:
        """Run the command, in the run that ``mlflow run`` created for it if it uses one; return its exit status."""


def load(name: str) -> Command:
    """Import and return the module of a command."""
    return cast(Command, importlib.import_module(f"tuning.cli.{name}"))


def overview() -> str:
    """Return the output of ``python -m tuning --help``."""
    width = max(map(len, SUMMARIES))
    commands = "\n".join(f"  {name.ljust(width)}  {summary}" for name, summary in SUMMARIES.items())
    return (
        "usage: python -m tuning COMMAND [--name value ...]\n\n"
        "Find the best fine-tune of a pretrained image classifier for your own images.\n\n"
        f"commands:\n{commands}\n\npython -m tuning COMMAND --help shows a command's options and an example."
    )


def page(name: str) -> str:
    """Return the output of ``python -m tuning NAME --help``."""
    command = load(name)
    return (
        f"usage: python -m tuning {name} [--name value ...]\n\n{SUMMARIES[name]}\n\n"
        f"options (name, type, default):\n{format_help(command.OPTIONS)}\n\nexample:\n  {command.EXAMPLE}"
    )
