"""How far reading and decoding has come: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, TaskID

from tuning.common import event_bus


class ProgressBar:
    """Call it with what is done, how many are done and of how many; within ``with``, so that a bar is taken down.

    It is for commands that show nothing else meanwhile; what a search shows is in ``tuning.ui.live``.
    """

    def __init__(self, on_errors: bool = False) -> None:
        """Show it on standard output, or on standard error and only in a terminal, where output is for programs."""
        self._console = Console(stderr=on_errors)
        self._quiet = on_errors
        self._bars = Progress(console=self._console, transient=True)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bars.stop()

    def __call__(self, what: str, done: int, of: int) -> None:
        """Show that ``done`` of ``of`` are done."""
        if self._console.is_terminal:
            if what not in self._tasks:
                self._tasks[what] = self._bars.add_task(what, total=of)
            self._bars.update(self._tasks[what], completed=done)
        elif not self._quiet:
            event_bus.emit_progress(what, done, of)
