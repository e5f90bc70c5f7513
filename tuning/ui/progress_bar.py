"""Progress of a command: a bar in a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, TaskID

from tuning.common.events import ProgressUpdated
from tuning.ui.console import ConsoleRenderer


class ProgressBar:
    """Context manager and progress callback ``(task, done, total)``; the bar is removed on exit.

    For commands without other output while they work; a search uses ``tuning.ui.live`` instead.
    """

    def __init__(self, use_stderr: bool = False) -> None:
        """Use standard output; or standard error, and only if it is a terminal, where output is for programs."""
        self._console = Console(stderr=use_stderr)
        self._terminal_only = use_stderr
        self._lines = ConsoleRenderer()
        self._progress = Progress(console=self._console, transient=True)
        self._task_ids: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._progress.stop()

    def __call__(self, task: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` steps of a task are done."""
        if self._console.is_terminal:
            if task not in self._task_ids:
                self._task_ids[task] = self._progress.add_task(task, total=total)
            self._progress.update(self._task_ids[task], completed=done)
        elif not self._terminal_only:
            self._lines.handle(ProgressUpdated(task, done, total))
