"""``freezeline COMMAND``, the same as ``python -m tuning COMMAND``."""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType

from tuning import shadowing_message

GC_THRESHOLDS = (50_000, 20, 20)  # by default imports are a tenth slower: collections visit all that is imported


def main(arguments: Sequence[str]) -> int:
    """Run a command or print help; return the exit status."""
    if message := shadowing_message():
        print(message, file=sys.stderr)
        return 2
    from tuning import cli  # imports the packages that may be shadowed

    return cli.main(arguments)


def console_script() -> int:
    """Run the command of this process; uncaught exceptions are printed with secrets masked."""
    sys.excepthook = _print_traceback
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        return main(sys.argv[1:])
    finally:
        gc.freeze()  # the interpreter's last collection would visit everything that was imported, for seconds


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of an uncaught exception with secrets masked."""
    from tuning.common.redaction import redact

    print(redact("".join(traceback.format_exception(kind, error, trace)).rstrip()), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(console_script())
