"""Keeping the live view's block at the bottom of the terminal, below the lines that scroll."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.live import Live

from tuning.common.events import Event, ProgressUpdated, StageStarted
from tuning.ui.live.render import REFRESH_PER_S, render
from tuning.ui.live.state import LiveState, reduce
from tuning.ui.log_renderer import LogRenderer

if TYPE_CHECKING:
    from rich.console import RenderableType


class LiveRenderer(LogRenderer):
    """Shows the progress of a search in a block at the bottom of the terminal; finished trials are printed above it.

    An event only replaces the state; a thread redraws the block ``REFRESH_PER_S`` times per second. A new stage is
    drawn at once, so that no stage stays invisible because it was short. The cursor is never hidden, so that the
    terminal stays usable however the process ends, ``kill -9`` included.
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
            case StageStarted():
                self._live.refresh()
            case ProgressUpdated():
                pass
            case _:
                super().handle(event)

    def close(self) -> None:
        """Remove the block."""
        self._live.stop()

    def _render(self) -> RenderableType:
        size = self.console.size
        return render(self._state, time.time(), size.width, size.height)
