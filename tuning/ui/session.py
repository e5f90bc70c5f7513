"""Which views a command opens, by its options ``quiet`` and ``events`` and by whether a terminal is there."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from data.errors import FreezelineError, UserError
from tuning.common.event_bus import View, opened, tell
from tuning.common.events import Ended, Event
from tuning.common.exit_codes import status_of
from tuning.recipe.schema import EventsForm
from tuning.ui.jsonl_renderer import JsonLinesView
from tuning.ui.live.renderer import LiveView
from tuning.ui.log_renderer import PlainView, QuietView

NO_TERMINALS = {"dumb", "unknown"}  # values of TERM: what calls itself so can't move its cursor


class Views:
    """Several views as one."""

    def __init__(self, views: Sequence[View]) -> None:
        """Take the views, to be told in this order."""
        self._views = views

    def tell(self, event: Event) -> None:
        """Tell each view."""
        for view in self._views:
            view.tell(event)

    def close(self) -> None:
        """Close each view."""
        for view in self._views:
            view.close()


def watched(command: str, quiet: bool, events: EventsForm, work: Callable[[], int]) -> int:
    """Do a command's work while what happens is shown; return its exit status.

    Raises:
        whatever ``work`` raises, once it was told and the terminal is as it was.
    """
    with _views(command, quiet, events) as view, opened(view):
        try:
            status = work()
        except BaseException as error:
            tell(Ended(status_of(error), _problems(error)))
            raise
        tell(Ended(status))
        return status


def _problems(error: BaseException) -> tuple[str, ...]:
    if isinstance(error, UserError):
        return error.problems
    if isinstance(error, FreezelineError):
        return (str(error),)
    return () if isinstance(error, KeyboardInterrupt) else (f"{type(error).__name__}: {error}",)


@contextmanager
def _views(command: str, quiet: bool, events: EventsForm) -> Iterator[View]:
    """Yield the view; where programs read standard output, whatever else is printed goes to standard error."""
    if events == "text":
        yield human_view(quiet, sys.stdout)
        return
    machine = JsonLinesView(sys.stdout, command)
    with contextlib.redirect_stdout(sys.stderr):
        yield Views((machine, human_view(quiet, sys.stderr, on_errors=True)))


def human_view(quiet: bool, file: IO[str], on_errors: bool = False) -> View:
    """Return what a person looks at where ``file`` is shown."""
    if quiet:
        return QuietView(on_errors)
    return LiveView(on_errors) if is_terminal(file) else PlainView(on_errors)


def is_terminal(file: IO[str]) -> bool:
    """Return whether a block can be drawn anew there, with the letters that it is made of."""
    encoding = (getattr(file, "encoding", None) or "").lower().replace("-", "")
    return file.isatty() and os.environ.get("TERM", "") not in NO_TERMINALS and encoding == "utf8"
