"""Which views a command opens, by its options ``quiet`` and ``events`` and by whether a terminal is there."""

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

DUMB_TERMINALS = {"dumb", "unknown"}  # values of TERM: what calls itself so can't move its cursor


class CompositeRenderer:
    """Several views as one."""

    def __init__(self, views: Sequence[Renderer]) -> None:
        """Take the views, to be told in this order."""
        self._renderers = views

    def handle(self, event: Event) -> None:
        """Tell each view."""
        for view in self._renderers:
            view.handle(event)

    def close(self) -> None:
        """Close each view."""
        for view in self._renderers:
            view.close()


def run_with_ui(command: str, quiet: bool, events: EventsForm, work: Callable[[], int]) -> int:
    """Do a command's work while what happens is shown; return its exit status.

    Raises:
        whatever ``work`` raises, once it was told and the terminal is as it was.
    """
    with _renderer(command, quiet, events) as view, use_renderer(view):
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
    """Yield the view; where programs read standard output, whatever else is printed goes to standard error."""
    if events == "text":
        yield make_renderer(quiet, sys.stdout)
        return
    machine = JsonLinesRenderer(sys.stdout, command)
    with contextlib.redirect_stdout(sys.stderr):
        yield CompositeRenderer((machine, make_renderer(quiet, sys.stderr, on_errors=True)))


def make_renderer(quiet: bool, file: IO[str], on_errors: bool = False) -> Renderer:
    """Return what a person looks at where ``file`` is shown."""
    if quiet:
        return QuietRenderer(on_errors)
    return LiveRenderer(on_errors) if is_terminal(file) else LogRenderer(on_errors)


def is_terminal(file: IO[str]) -> bool:
    """Return whether a block can be drawn anew there, with the letters that it is made of."""
    encoding = (getattr(file, "encoding", None) or "").lower().replace("-", "")
    return file.isatty() and os.environ.get("TERM", "") not in DUMB_TERMINALS and encoding == "utf8"
