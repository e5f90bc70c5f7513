"""The event bus: passes the events of a command to its renderers.

A command opens one (``tuning.ui.session.open_event_bus``) and passes it to its workflow. Code below the workflows does
not know it: it logs with ``logging``, and the session shows these records as messages.
"""

from __future__ import annotations

import threading
from typing import Protocol

from tuning.common.events import CommandEnded, Event, Message, ProgressUpdated, StageStarted, TablesShown


class Renderer(Protocol):
    """Shows events to a person or writes them for a program."""

    def handle(self, event: Event) -> None:
        """Show an event. One thread calls this at a time, sometimes the driver's event loop, so it must be fast."""

    def close(self) -> None:
        """Restore the terminal; no event follows."""


class EventBus:
    """Passes each event to the renderers in their order, from any thread, one event at a time."""

    def __init__(self, *renderers: Renderer) -> None:
        self._renderers = renderers
        self._lock = threading.RLock()

    def emit(self, event: Event) -> None:
        """Pass an event to the renderers."""
        with self._lock:
            for renderer in self._renderers:
                renderer.handle(event)

    def progress(self, task: str, done: int, total: int) -> None:
        """Emit the progress of a task; passed to ``data`` and ``models`` as their ``ProgressCallback``."""
        self.emit(ProgressUpdated(task, done, total))

    def stage(self, stage: str) -> None:
        """Emit the start of a stage that takes a while."""
        self.emit(StageStarted(stage))

    def info(self, text: str) -> None:
        """Emit a message, shown with the time of day."""
        self.emit(Message(text))

    def warning(self, text: str) -> None:
        """Emit a warning: an error, or something the user must do. Shown in every mode, including ``quiet``."""
        self.emit(Message(text, is_warning=True))

    def show(self, *parts: object) -> None:
        """Emit tables and lines, shown unchanged."""
        self.emit(TablesShown(parts))

    def end(self, exit_status: int, problems: tuple[str, ...] = ()) -> int:
        """Emit the end of the command with its error messages; return the exit status."""
        self.emit(CommandEnded(exit_status, problems))
        return exit_status

    def close(self) -> None:
        """Close the renderers."""
        for renderer in self._renderers:
            renderer.close()
