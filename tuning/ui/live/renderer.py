"""Keeping the live view's block in the terminal, below the lines that scroll."""

from __future__ import annotations

import textwrap
import time
from typing import TYPE_CHECKING

from rich.live import Live

from tuning.common.events import AuditCompleted, EpochEnded, Event, ProgressUpdated, StageStarted
from tuning.ui.live.render import REFRESH_PER_S, render
from tuning.ui.live.state import LiveState, reduce
from tuning.ui.log_renderer import LogRenderer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from data.audit.report import Audit
    from tuning.common.trial_record import TrialRecord

INDENT = len("00:00:00  ")  # of a sentence's lines after the first, below its time
COMMAND = "python -m"


class LiveRenderer(LogRenderer):
    """Shows how a search is doing in a block at the end of the terminal; what has ended is a line above it.

    An event changes a value, no more; a thread draws it ``REFRESH_PER_S`` times in a second. The cursor is never hidden:
    whatever ends the process, ``kill -9`` too, leaves a terminal that can be typed in.
    """

    def __init__(self, on_errors: bool = False) -> None:
        """Take the terminal of standard output, or of standard error, until ``close``."""
        super().__init__(on_errors)
        now_s = time.time()
        self._state = LiveState(began_s=now_s, stage="getting ready", stage_began_s=now_s)
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
        """Change what is shown, and print what stays."""
        self._state = reduce(self._state, event, time.time())
        match event:
            case StageStarted() | ProgressUpdated():
                pass
            case AuditCompleted():
                self.print_parts(wrap_hanging(audit_line(event.audit), self.console.width - 2, indent=2))
            case EpochEnded():
                self.epoch_ended(event)
            case _:
                super().handle(event)

    def say(self, text: str, style: str = "") -> None:
        """Print a sentence with the time of day, wrapped between words; one with a command stays whole to be copied."""
        width = self.console.width - INDENT
        super().print_message(text if COMMAND in text else wrap_hanging(text, width, INDENT), style)

    def trial_runs(self, result: TrialRecord) -> None:
        """Print nothing: the block has it."""

    def so_far(self, with_best: bool = True) -> str:
        """Return nothing: the block has it."""
        return ""

    def close(self) -> None:
        """Take the block away."""
        self._live.stop()

    def _render(self) -> RenderableType:
        size = self.console.size
        return render(self._state, time.time(), size.width, size.height)


def wrap_hanging(text: str, width: int, indent: int) -> str:
    """Return a text wrapped between its words, each line but the first after ``indent`` spaces."""
    lines = textwrap.wrap(text, max(width, 20), break_long_words=False, break_on_hyphens=False)
    return ("\n" + " " * indent).join(lines)


def audit_line(audit: Audit) -> str:
    """Return a data set and what was found in it, in a line."""
    return "; ".join([audit.headline, *(f"{finding.count:,} {finding.title}" for finding in audit.findings)])
