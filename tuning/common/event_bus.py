"""The stream of events: whoever has something to tell hands it to the view that is open.

One command runs in a process, so there is one stream: what is deep in a search can speak without a view being handed
down to it, as with logging. Without an open view, events are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from tuning.common.events import Entered, Event, Progressed, Said, Shown


class View(Protocol):
    """What shows events, to a person or to a program."""

    def tell(self, event: Event) -> None:
        """Take an event; called by one thread at a time, on the driver's loop too: it must be quick."""

    def close(self) -> None:
        """Leave the terminal as it was; nothing is told afterwards."""


_open: list[View] = []  # the last one is told


def tell(event: Event) -> None:
    """Hand an event to the view that is open."""
    if _open:
        _open[-1].tell(event)


def progress(what: str, done: int, of: int) -> None:
    """Tell that ``done`` of ``of`` are done; what ``data`` and ``models`` are handed as their ``Progress``."""
    tell(Progressed(what, done, of))


def enter(part: str) -> None:
    """Tell that a part of the work begins that takes a while."""
    tell(Entered(part))


@contextmanager
def opened(view: View) -> Iterator[None]:
    """Within: ``view`` is told; afterwards it is closed, whatever happened."""
    _open.append(view)
    try:
        yield
    finally:
        _open.remove(view)
        view.close()


def say(text: str) -> None:
    """Tell a sentence, which is shown with the time of day."""
    tell(Said(text))


def warn(text: str) -> None:
    """Tell a sentence that asks to do something, or of what went wrong: it is shown whatever was asked to be shown."""
    tell(Said(text, matters=True))


def show(*parts: object) -> None:
    """Tell tables and lines, which are shown as they are."""
    tell(Shown(parts))
