"""The commands of ``python -m tuning``: one short module each, imported only when the command is called.

The module of a command defines ``Options``, the model of its options; ``EXAMPLE``, a command to copy;
``run(options, mlflow_run_id) -> int``, which returns the exit status; and, if a command line is more than options,
``parse_options(arguments) -> Options``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from pydantic import BaseModel

from tuning.cli.parser import format_help, parse

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

    Options: type[BaseModel]
    EXAMPLE: str

    def run(self, options: BaseModel, mlflow_run_id: str | None) -> int:
        """Run the command, in the run that ``mlflow run`` created for it if it uses one; return its exit status."""


def load(name: str) -> Command:
    """Import and return the module of a command."""
    return cast(Command, importlib.import_module(f"tuning.cli.{name}"))


def parse_options(name: str, arguments: Sequence[str]) -> BaseModel:
    """Return the options of a command; raise ``SettingError`` with all problems."""
    command = load(name)
    own_parser: Callable[[Sequence[str]], BaseModel] | None = getattr(command, "parse_options", None)
    return own_parser(arguments) if own_parser else parse(command.Options, arguments)


def run(name: str, arguments: Sequence[str], mlflow_run_id: str | None) -> int:
    """Run a command; return its exit status."""
    return load(name).run(parse_options(name, arguments), mlflow_run_id)


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
        f"options (name, type, default):\n{format_help(command.Options)}\n\nexample:\n  {command.EXAMPLE}"
    )
