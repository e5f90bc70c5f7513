"""``python -m tuning COMMAND``: run a command; report user errors as messages with exit status 2."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType

from data.errors import FreezelineError, UserError, did_you_mean
from tuning import cli
from tuning.common.environment import configure_environment
from tuning.common.exit_codes import FAILED, INTERRUPTED, USAGE_ERROR
from tuning.common.redaction import redact


def main(arguments: Sequence[str]) -> int:
    """Run a command or print help; return the exit status."""
    try:
        status = _main(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader (e.g. head) closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return status


def _main(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(cli.overview())
        return 0 if arguments else USAGE_ERROR
    name, rest = arguments[0], list(arguments[1:])
    if name not in cli.SUMMARIES:
        near = did_you_mean(name, cli.SUMMARIES) or "; see python -m tuning --help."
        print(f"there is no command {name!r}{near}", file=sys.stderr)
        return USAGE_ERROR
    if {"-h", "--help"} & set(rest):
        print(cli.page(name))
        return 0
    return _run(name, rest)


def _run(name: str, arguments: Sequence[str]) -> int:
    mlflow_run_id = configure_environment()
    try:
        return cli.run(name, arguments, mlflow_run_id)
    except UserError as error:
        for problem in error.problems:
            _print_error(f"{name}: {problem}{'' if problem.endswith(('.', '?')) else '.'}")
        return USAGE_ERROR
    except FreezelineError as error:
        _print_error(f"{name}: {error}")
        return FAILED
    except KeyboardInterrupt:
        print(f"{name}: stopped.", file=sys.stderr)
        return INTERRUPTED


def _print_error(text: str) -> None:
    print(redact(text), file=sys.stderr)


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of an uncaught exception with secrets masked."""
    _print_error("".join(traceback.format_exception(kind, error, trace)).rstrip())


if __name__ == "__main__":
    sys.excepthook = _print_traceback
    sys.exit(main(sys.argv[1:]))
