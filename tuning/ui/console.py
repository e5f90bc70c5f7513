"""Messages with the time of day, tables and progress: the base of the text renderers."""

from __future__ import annotations

import time
from datetime import datetime

from rich.console import Console
from rich.text import Text

from tuning.common.redaction import redact

PROGRESS_INTERVAL_S = 5.0  # between two progress lines of one task


class ConsolePrinter:
    """Prints messages and tables with secrets masked; lines are never wrapped, so that they can be copied."""

    def __init__(self, use_stderr: bool = False) -> None:
        """Print to standard output, or to standard error if standard output is machine-readable."""
        self.console = Console(stderr=use_stderr, soft_wrap=True, highlight=False, markup=False, emoji=False)
        self._task = ""  # of the last progress event
        self._last_progress_s = 0.0  # when the task began or its progress was last printed

    def print_message(self, text: str, style: str = "") -> None:
        """Print a message with the time of day."""
        # As a Text: a style given to Console.print would also apply to the live view's block.
        self.console.print(Text(f"{datetime.now():%H:%M:%S}  {redact(text)}", style=style))

    def print_parts(self, *parts: object) -> None:
        """Print lines and tables unchanged."""
        for part in parts:
            self.console.print(redact(part) if isinstance(part, str) else part)

    def print_progress(self, task: str, done: int, total: int) -> None:
        """Print progress every ``PROGRESS_INTERVAL_S`` seconds."""
        now_s = time.monotonic()
        if task != self._task:
            self._task, self._last_progress_s = task, now_s
        elif now_s - self._last_progress_s > PROGRESS_INTERVAL_S:
            self._last_progress_s = now_s
            self.print_message(f"{task}: {done:,} of {total:,}")


def print_tables(*parts: object) -> None:
    """Print lines and tables to standard output; for commands without a stream of events."""
    ConsolePrinter().print_parts(*parts)
