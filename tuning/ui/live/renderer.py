"""Keeping the live view's block at the bottom of the terminal, below the lines that scroll."""

from __future__ import annotations

import textwrap
import time
from typing import TYPE_CHECKING

from rich.live import Live

from tuning.common.events import AuditCompleted, Event, ProgressUpdated, StageStarted
from tuning.ui.live.render import REFRESH_PER_S, render
from tuning.ui.live.state import LiveState, reduce
from tuning.ui.log_renderer import LogRenderer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from data.audit.report import Audit
    from tuning.common.trial_record import TrialRecord

INDENT = len("00:00:00  ")  # of a message's continuation lines, below its text
COMMAND = "python -m"


class LiveRenderer(LogRenderer):
    """Shows the progress of a search in a block at the bottom of the terminal; finished trials are printed above it.

    An event only replaces the state; a thread redraws the block ``REFRESH_PER_S`` times per second. The cursor is never
    hidden, so that the terminal stays usable however the process ends, ``kill -9`` included.
    """

    def __init__(self, use_stderr: bool = False) -> None:
        """Draw on the terminal of standard output, or of standard error, until ``close``."""
        super().__init__(use_stderr)
        now_s = time.time()
        self._state = LiveState(started_s=now_s, stage="starting", stage_started_s=now_s)
        self._live = Live(
            console=self.console,
            refresh_per_second=REFRESH_PER_S,
            transient=True,
            vertical_overflow="crop",
            get_renderable=self._render,
        )
        self._live.start()
        self.console.show_cursor(True)

    def handle(self, event: Event) -> None:
        """Update the state, and print the lines that stay."""
        self._state = reduce(self._state, event, time.time())
        match event:
            case StageStarted() | ProgressUpdated():
                pass
            case AuditCompleted():
                self.print_parts(wrap_hanging(audit_line(event.audit), self.console.width - 2, indent=2))
            case _:
                super().handle(event)

    def print_message(self, text: str, style: str = "") -> None:
        """Print a message with the time of day, wrapped between words unless it holds a command to copy."""
        width = self.console.width - INDENT
        super().print_message(text if COMMAND in text else wrap_hanging(text, width, INDENT), style)

    def print_trial_started(self, trial: TrialRecord) -> None:
        """Print nothing: the block shows running trials."""

    def progress_suffix(self, with_best: bool = True) -> str:
        """Return an empty text: the block shows the best score and the counts."""
        return ""

    def close(self) -> None:
        """Remove the block."""
        self._live.stop()

    def _render(self) -> RenderableType:
        size = self.console.size
        return render(self._state, time.time(), size.width, size.height)


def wrap_hanging(text: str, width: int, indent: int) -> str:
    """Return a text wrapped between words, with continuation lines indented by ``indent`` spaces."""
    lines = textwrap.wrap(text, max(width, 20), break_long_words=False, break_on_hyphens=False)
    return ("\n" + " " * indent).join(lines)


def audit_line(audit: Audit) -> str:
    """Return the summary of a data set and its audit findings in one line."""
    return "; ".join([audit.headline, *(f"{finding.count:,} {finding.title}" for finding in audit.findings)])
