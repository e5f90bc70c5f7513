"""Progress of a command: a bar in a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, TaskID

from data.parallel import ProgressCallback
from tuning.ui.console import ConsolePrinter


@contextmanager
def progress_bar(use_stderr: bool = False) -> Iterator[ProgressCallback]:
    """Context manager: yield a progress callback; the bar is removed on exit.

    For commands without other output while they work; a search uses ``tuning.ui.live`` instead. With ``use_stderr``,
    where standard output is for programs, progress is shown only in a terminal.
    """
    console, printer = Console(stderr=use_stderr), ConsolePrinter()
    task_ids: dict[str, TaskID] = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:

        def show(task: str, done: int, total: int) -> None:
            if console.is_terminal:
                if task not in task_ids:
                    task_ids[task] = progress.add_task(task, total=total)
                progress.update(task_ids[task], completed=done)
            elif not use_stderr:
                printer.print_progress(task, done, total)

        yield show
