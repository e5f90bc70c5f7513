"""Messages with the time of day, tables and progress: the base of the text renderers, and for other commands."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console
from rich.progress import Progress, TaskID
from rich.text import Text

from data.parallel import ProgressCallback
from tuning.common.redaction import redact

PROGRESS_INTERVAL_S = 5.0  # between two progress lines of one task


class ConsolePrinter:
    """Prints messages and tables with secrets masked; lines are never wrapped, so that they can be copied."""

    def __init__(self, use_stderr: bool = False) -> None:
        """Print to standard output, or to standard error if standard output is machine-readable."""
        # The stream of now: a library that replaces sys.stdout for a while must not receive the user's lines.
        file = sys.stderr if use_stderr else sys.stdout
        self.console = Console(file=file, soft_wrap=True, highlight=False, markup=False, emoji=False)
        self._task = ""  # of the last progress event
        self._last_progress_s = 0.0  # when the task began or its progress was last printed

    def print_message(self, text: str, style: str = "") -> None:
        """Print a message with the time of day."""
        # As a Text: a style given to Console.print would also apply to the live view's block.
        self.print_line(f"{datetime.now():%H:%M:%S}  {text}", style)

    def print_line(self, text: str, style: str = "") -> None:
        """Print a line with a style."""
        self.console.print(Text(redact(text), style=style))

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


@contextmanager
def progress_bar(use_stderr: bool = False) -> Iterator[ProgressCallback]:
    """Context manager: yield a progress callback; the bar is removed on exit.

    For commands without other output while they work; a search uses the live view instead. With ``use_stderr``,
    where standard output is for programs, progress is shown only in a terminal.
    """
    console, printer = Console(stderr=use_stderr), ConsolePrinter()
    task_ids: dict[str, TaskID] = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:

        def show(task: str, done: int, total: int) -> None:
            if console.is_terminal:
                if task not in task_ids:
                    task_ids[task] = progress.add_task(task, total=total)
                progress.update(task_ids[task], completed=done)
            elif not use_stderr:
                printer.print_progress(task, done, total)

        yield show


def wrap_hanging(text: str, width: int, indent: int) -> str:
    """Return a text wrapped between words, with continuation lines indented by ``indent`` spaces."""
    lines = textwrap.wrap(text, max(width, 20), break_long_words=False, break_on_hyphens=False)
    return ("\n" + " " * indent).join(lines)
