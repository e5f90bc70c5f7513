"""Messages with the time of day, tables and progress: the base of the text renderers."""

from __future__ import annotations

import time
from datetime import datetime

from rich.console import Console
from rich.text import Text

from tuning.common.events import Event, Message, ProgressUpdated, TablesShown
from tuning.common.redaction import redact

PROGRESS_INTERVAL_S = 5.0  # between two progress lines of one task


class ConsoleRenderer:
    """Prints messages and tables with secrets masked; lines are never wrapped, so that they can be copied."""

    def __init__(self, use_stderr: bool = False) -> None:
        """Print to standard output, or to standard error if standard output is machine-readable."""
        self.console = Console(stderr=use_stderr, soft_wrap=True, highlight=False, markup=False, emoji=False)
        self._task = ""  # of the last progress event
        self._last_progress_s = 0.0  # when the task began or its progress was last printed

    def handle(self, event: Event) -> None:
        """Print the messages and tables; print progress every ``PROGRESS_INTERVAL_S`` seconds."""
        match event:
            case Message():
                self.print_message(event.text)
            case TablesShown():
                self.print_parts(*event.parts)
            case ProgressUpdated():
                self._print_progress(event)

    def print_message(self, text: str, style: str = "") -> None:
        """Print a message with the time of day."""
        # As a Text: a style given to Console.print would also apply to the live view's block.
        self.console.print(Text(f"{datetime.now():%H:%M:%S}  {redact(text)}", style=style))

    def print_parts(self, *parts: object) -> None:
        """Print lines and tables unchanged."""
        for part in parts:
            self.console.print(redact(part) if isinstance(part, str) else part)

    def _print_progress(self, event: ProgressUpdated) -> None:
        now_s = time.monotonic()
        if event.task != self._task:
            self._task, self._last_progress_s = event.task, now_s
        elif now_s - self._last_progress_s > PROGRESS_INTERVAL_S:
            self._last_progress_s = now_s
            self.print_message(f"{event.task}: {event.done:,} of {event.total:,}")

    def close(self) -> None:
        """Do nothing: the terminal was not changed."""


def print_tables(*parts: object) -> None:
    """Print lines and tables to standard output; for commands without a stream of events."""
    ConsoleRenderer().print_parts(*parts)
