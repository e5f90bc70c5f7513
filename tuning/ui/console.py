"""Sentences with the time of day, tables, and how far something is now and then: the least that a view shows."""

from __future__ import annotations

import time
from datetime import datetime

from rich.console import Console
from rich.text import Text

from tuning.common.events import Event, Message, ProgressUpdated, TablesShown
from tuning.common.redaction import redact

LINE_EVERY_S = 5.0  # between two lines that say how far something is


class ConsoleRenderer:
    """Prints sentences and tables, secrets hidden; a line is never wrapped, so that it can be copied."""

    def __init__(self, on_errors: bool = False) -> None:
        """Print on standard output, or on standard error where that is for a program."""
        self.console = Console(stderr=on_errors, soft_wrap=True, highlight=False, markup=False, emoji=False)
        self._task = ""  # whose progress was told last
        self._said_s = 0.0  # when a line said how far it is, or it began

    def handle(self, event: Event) -> None:
        """Print what is for a person; how far something is only every few seconds."""
        match event:
            case Message():
                self.print_message(event.text)
            case TablesShown():
                self.print_parts(*event.parts)
            case ProgressUpdated():
                self._progress(event)

    def print_message(self, text: str, style: str = "") -> None:
        """Print a sentence with the time of day."""
        # As a Text: a style that is given to print would be that of the live view's block as well.
        self.console.print(Text(f"{datetime.now():%H:%M:%S}  {redact(text)}", style=style))

    def print_parts(self, *parts: object) -> None:
        """Print lines and tables as they are."""
        for part in parts:
            self.console.print(redact(part) if isinstance(part, str) else part)

    def _progress(self, event: ProgressUpdated) -> None:
        now_s = time.monotonic()
        if event.task != self._task:
            self._task, self._said_s = event.task, now_s
        elif now_s - self._said_s > LINE_EVERY_S:
            self._said_s = now_s
            self.print_message(f"{event.task}: {event.done:,} of {event.total:,}")

    def close(self) -> None:
        """Leave the terminal as it is."""
