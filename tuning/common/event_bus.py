"""The event bus: passes the events of a command to the active renderer.

A process runs one command, so the bus is global, like ``logging``: code deep in a search emits events without being
passed a renderer. Events are dropped while no renderer is active.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from tuning.common.events import Event, Message, ProgressUpdated, StageStarted, TablesShown


class Renderer(Protocol):
    """Shows events to a person or writes them for a program."""

    def handle(self, event: Event) -> None:
        """Show an event. One thread calls this at a time, sometimes the driver's event loop, so it must be fast."""

    def close(self) -> None:
        """Restore the terminal; no event follows."""


_renderers: list[Renderer] = []  # the last one is active


def emit(event: Event) -> None:
    """Pass an event to the active renderer."""
    if _renderers:
        _renderers[-1].handle(event)


def emit_progress(task: str, done: int, total: int) -> None:
    """Emit the progress of a task; passed to ``data`` and ``models`` as their ``ProgressCallback``."""
    emit(ProgressUpdated(task, done, total))


def start_stage(stage: str) -> None:
    """Emit the start of a stage that takes a while."""
    emit(StageStarted(stage))


@contextmanager
def use_renderer(renderer: Renderer) -> Iterator[None]:
    """Context manager: make ``renderer`` the active one, and close it on exit."""
    _renderers.append(renderer)
    try:
        yield
    finally:
        _renderers.remove(renderer)
        renderer.close()


def info(text: str) -> None:
    """Emit a message, shown with the time of day."""
    emit(Message(text))


def warning(text: str) -> None:
    """Emit a warning: an error, or something the user must do. Shown in every mode, including ``quiet``."""
    emit(Message(text, is_warning=True))


def print_table(*parts: object) -> None:
    """Emit tables and lines, shown unchanged."""
    emit(TablesShown(parts))
