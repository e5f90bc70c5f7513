"""The stream of events: whoever has something to tell hands it to the view that is open.

One command runs in a process, so there is one stream: what is deep in a search can speak without a view being handed
down to it, as with logging. Without an open view, events are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from tuning.common.events import Event, Message, ProgressUpdated, StageStarted, TablesShown


class Renderer(Protocol):
    """What shows events, to a person or to a program."""

    def handle(self, event: Event) -> None:
        """Take an event; called by one thread at a time, on the driver's loop too: it must be quick."""

    def close(self) -> None:
        """Leave the terminal as it was; nothing is told afterwards."""


_renderers: list[Renderer] = []  # the last one is told


def emit(event: Event) -> None:
    """Hand an event to the view that is open."""
    if _renderers:
        _renderers[-1].handle(event)


def emit_progress(what: str, done: int, of: int) -> None:
    """Tell that ``done`` of ``of`` are done; what ``data`` and ``models`` are handed as their ``Progress``."""
    emit(ProgressUpdated(what, done, of))


def start_stage(stage: str) -> None:
    """Tell that a part of the work begins that takes a while."""
    emit(StageStarted(stage))


@contextmanager
def use_renderer(view: Renderer) -> Iterator[None]:
    """Within: ``view`` is told; afterwards it is closed, whatever happened."""
    _renderers.append(view)
    try:
        yield
    finally:
        _renderers.remove(view)
        view.close()


def info(text: str) -> None:
    """Tell a sentence, which is shown with the time of day."""
    emit(Message(text))


def warning(text: str) -> None:
    """Tell a sentence that asks to do something, or of what went wrong: it is shown whatever was asked to be shown."""
    emit(Message(text, is_warning=True))


def print_table(*parts: object) -> None:
    """Tell tables and lines, which are shown as they are."""
    emit(TablesShown(parts))
