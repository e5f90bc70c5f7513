"""``python -m tuning COMMAND``: finds the command, and turns a user's mistake into sentences and exit status 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from data.errors import FreezelineError, UserError, did_you_mean
from tuning import commands

FAILED = 1
MISTAKE = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells count


def main(arguments: Sequence[str]) -> int:
    """Run one command; return its exit status."""
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(commands.overview())
        return 0 if arguments else MISTAKE
    name, rest = arguments[0], list(arguments[1:])
    if name not in commands.SUMMARIES:
        near = did_you_mean(name, commands.SUMMARIES) or "; see python -m tuning --help."
        print(f"there is no command {name!r}{near}", file=sys.stderr)
        return MISTAKE
    if {"-h", "--help"} & set(rest):
        print(commands.page(name))
        return 0
    return _run(name, rest)


def _run(name: str, arguments: Sequence[str]) -> int:
    try:
        return commands.load(name).run(arguments)
    except UserError as error:
        for problem in error.problems:
            print(f"{name}: {problem}{'' if problem.endswith(('.', '?')) else '.'}", file=sys.stderr)
        return MISTAKE
    except FreezelineError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:  # whoever read our output, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        print(f"{name}: stopped.", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
