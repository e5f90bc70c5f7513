"""Selecting a command's renderer by its options ``quiet`` and ``events`` and by the terminal, and running it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from data.errors import FreezelineError, UserError
from tuning.common.event_bus import Renderer, emit, use_renderer
from tuning.common.events import CommandEnded, Event
from tuning.common.exit_codes import exit_code_of
from tuning.recipe.schema import EventsForm
from tuning.ui.jsonl_renderer import JsonLinesRenderer
from tuning.ui.live.renderer import LiveRenderer
from tuning.ui.log_renderer import LogRenderer, QuietRenderer

DUMB_TERMINALS = {"dumb", "unknown"}  # values of TERM for terminals that cannot move the cursor


class CompositeRenderer:
    """Several renderers as one."""

    def __init__(self, renderers: Sequence[Renderer]) -> None:
        """Take the renderers; each event goes to them in this order."""
        self._renderers = renderers

    def handle(self, event: Event) -> None:
        """Pass an event to each renderer."""
        for renderer in self._renderers:
            renderer.handle(event)

    def close(self) -> None:
        """Close each renderer."""
        for renderer in self._renderers:
            renderer.close()


def run_with_ui(command: str, quiet: bool, events: EventsForm, work: Callable[[], int]) -> int:
    """Run a command's work while its events are rendered; return the exit status.

    Raises:
        BaseException: any exception of ``work``, after ``CommandEnded`` was rendered and the renderer closed.
    """
    with _renderer(command, quiet, events) as renderer, use_renderer(renderer):
        try:
            status = work()
        except BaseException as error:
            emit(CommandEnded(exit_code_of(error), _problems(error)))
            raise
        emit(CommandEnded(status))
        return status


def _problems(error: BaseException) -> tuple[str, ...]:
    if isinstance(error, UserError):
        return error.problems
    if isinstance(error, FreezelineError):
        return (str(error),)
    return () if isinstance(error, KeyboardInterrupt) else (f"{type(error).__name__}: {error}",)


@contextmanager
def _renderer(command: str, quiet: bool, events: EventsForm) -> Iterator[Renderer]:
    """Yield the renderer; with JSON Lines on standard output, all other output goes to standard error."""
    if events == "text":
        yield make_renderer(quiet, sys.stdout)
        return
    json_lines = JsonLinesRenderer(sys.stdout, command)
    with contextlib.redirect_stdout(sys.stderr):
        yield CompositeRenderer((json_lines, make_renderer(quiet, sys.stderr, use_stderr=True)))


def make_renderer(quiet: bool, file: IO[str], use_stderr: bool = False) -> Renderer:
    """Return the text renderer for output to ``file``."""
    if quiet:
        return QuietRenderer(use_stderr)
    return LiveRenderer(use_stderr) if can_render_live(file) else LogRenderer(use_stderr)


def can_render_live(file: IO[str]) -> bool:
    """Return whether ``file`` is a UTF-8 terminal that can move its cursor."""
    encoding = (getattr(file, "encoding", None) or "").lower().replace("-", "")
    return file.isatty() and os.environ.get("TERM", "") not in DUMB_TERMINALS and encoding == "utf8"
