"""The commands of ``freezeline``: one short module each, imported only when the command is called.

The module of a command defines ``Options``, the model of its options; ``POSITIONALS``, those that need no name;
``EXAMPLE``, a command to copy; ``run(options, mlflow_run_id) -> int``, which returns the exit status; and, if its
options are more than values, ``parse_options(arguments) -> Options``.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, cast

from pydantic import BaseModel

from data.errors import FreezelineError, UserError, did_you_mean
from data.home import state_dir_problem
from tuning import __version__
from tuning.cli.parser import EXIT_STATUSES, Parser, build_parser, parse
from tuning.common.environment import configure_environment
from tuning.common.exit_codes import FAILED, INTERRUPTED, USAGE_ERROR
from tuning.common.redaction import redact

PROGRAM = "freezeline"
SHELLS = ("bash", "zsh", "tcsh")
SUMMARIES = {
    "tune": "search for the best fine-tune of a classifier for a folder of images, and register it",
    "resume": "continue an interrupted search, or extend a finished one",
    "train": "train one configuration, or again that of a finished trial or a registered version",
    "evaluate": "evaluate a packaged model on images",
    "promote": "decide whether a packaged model becomes champion",
    "rollback": "restore the previous champion",
    "champions": "show the history of champions with reasons",
    "predict": "classify images with a packaged model",
    "monitor": "compare recorded answers of a model in use with those for its test images; exit status 3 on drift",
    "sync": "deliver queued data to MLflow: metrics, files, the model and its promotion",
    "compare": "compare searches by score, network and time",
    "audit": "report problems of a data set file by file, before training",
    "weights": "pack pretrained weights into a folder, for machines that reach no model hub",
    "blocks": "list the blocks at which a network can be frozen or truncated, with their cost",
    "cache": "show or clear the cached pixels and features on disk",
}


class Command(Protocol):
    """The interface of a command's module."""

    Options: type[BaseModel]
    POSITIONALS: tuple[str, ...]
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
    return own_parser(arguments) if own_parser else parse(command.Options, arguments, command.POSITIONALS)


def run(name: str, arguments: Sequence[str], mlflow_run_id: str | None) -> int:
    """Run a command; return its exit status."""
    return load(name).run(parse_options(name, arguments), mlflow_run_id)


def overview() -> str:
    """Return the output of ``freezeline --help``."""
    width = max(map(len, SUMMARIES))
    commands = "\n".join(f"  {name.ljust(width)}  {summary}" for name, summary in SUMMARIES.items())
    return (
        f"usage: {PROGRAM} COMMAND [arguments] [options]\n\n"
        "Find the best fine-tune of a pretrained image classifier for your own images.\n\n"
        f"commands:\n{commands}\n\n"
        f"{PROGRAM} COMMAND --help shows a command's options; --version the version;\n"
        f"--print-completion {'|'.join(SHELLS)} a completion script for the shell.\n\n{EXIT_STATUSES}"
    )


def page(name: str) -> str:
    """Return the output of ``freezeline NAME --help``."""
    return _parser(name).format_help().rstrip()


def completion(shell: str) -> str:
    """Return a completion script for ``bash``, ``zsh`` or ``tcsh``."""
    import shtab

    parser = Parser(prog=PROGRAM)
    commands = parser.add_subparsers()
    for name, summary in SUMMARIES.items():
        commands.add_parser(name, parents=[_parser(name)], add_help=False, help=summary)
    return str(shtab.complete(parser, shell))


def _parser(name: str) -> Parser:
    command = load(name)
    return build_parser(f"{PROGRAM} {name}", command.Options, command.POSITIONALS, SUMMARIES[name], command.EXAMPLE)


def main(arguments: Sequence[str]) -> int:
    """Run a command or print help; return the exit status."""
    _prepare_output()
    try:
        status = _main(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader (e.g. head) closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return status


def _prepare_output() -> None:
    """Replace characters that standard output cannot encode (C locale), and a closed output by the null device."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  # until the process ends
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


def _main(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(page(arguments[1]) if arguments[1:2] and arguments[1] in SUMMARIES else overview())
        return 0 if arguments else USAGE_ERROR
    name, rest = arguments[0], list(arguments[1:])
    if name == "--version":
        print(f"{PROGRAM} {__version__}")
        return 0
    if name == "--print-completion" and rest[:1] and rest[0] in SHELLS:
        print(completion(rest[0]))
        return 0
    if name not in SUMMARIES:
        print(_unknown_command(name), file=sys.stderr)
        return USAGE_ERROR
    if {"-h", "--help"} & set(rest):
        print(page(name))
        return 0
    return _run(name, rest)


def _unknown_command(name: str) -> str:
    if Path(name).exists():
        return f"a command must come first, got {name!r}; to search on this data, use {PROGRAM} tune {name}."
    return f"there is no command {name!r}{did_you_mean(name, SUMMARIES) or f'; see {PROGRAM} --help.'}"


def _run(name: str, arguments: Sequence[str]) -> int:
    mlflow_run_id = configure_environment()
    try:
        return run(name, arguments, mlflow_run_id)
    except UserError as error:
        for problem in error.problems:
            _print_error(f"{name}: {problem}{'' if problem.endswith(('.', '?')) else '.'}")
        return USAGE_ERROR
    except FreezelineError as error:
        _print_error(f"{name}: {error}")
        return FAILED
    except OSError as error:
        if not (problem := state_dir_problem(error)):
            raise
        _print_error(f"{name}: {problem}.")
        return USAGE_ERROR
    except KeyboardInterrupt:
        print(f"{name}: stopped.", file=sys.stderr)
        return INTERRUPTED


def _print_error(text: str) -> None:
    print(redact(text), file=sys.stderr)
