"""Exit statuses of ``freezeline``."""

from __future__ import annotations

from data.errors import UserError

FINISHED = 0
FAILED = 1
USAGE_ERROR = 2
DRIFT = 3  # of ``monitor``, so that cron or CI can act
INTERRUPTED = 130  # 128 + SIGINT, as in shells


def exit_code_of(error: BaseException) -> int:
    """Return the exit status of a command that ended with ``error``."""
    if isinstance(error, UserError):
        return USAGE_ERROR
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED
