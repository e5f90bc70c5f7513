"""Parallel work on files, with progress reports: in threads, or in processes if there are many small files."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor
from typing import TypeVar

from data.machine import available_cores

logger = logging.getLogger(__name__)

A = TypeVar("A")
B = TypeVar("B")
ProgressCallback = Callable[[str, int, int], None]  # description of the work, completed items, total items

# Pillow releases the GIL while it decodes, but not while it opens a file, which takes longest for small images. With
# fewer items, threads end before processes have started.
MIN_ITEMS_FOR_PROCESSES = 4000
CHUNK_SIZE = 64  # items that a process takes at once


def parallel_map(
    work: Callable[[A], B],
    items: Sequence[A],
    description: str = "",
    progress: ProgressCallback | None = None,
    max_workers: int | None = None,
) -> Iterator[B]:
    """Yield ``work(item)`` in the order of the items, computed in threads.

    An exception in ``work`` is re-raised, and items that have not started are canceled. By default there is a thread
    for each of the ``available_cores``.
    """
    pool = ThreadPoolExecutor(max_workers=max_workers or available_cores())
    try:
        with warnings.catch_warnings():
            _ignore_pillow_warnings()
            for completed, result in enumerate(pool.map(work, items), start=1):
                yield result
                if progress:
                    progress(description, completed, len(items))
    finally:
        pool.shutdown(cancel_futures=True)


def process_map(
    work: Callable[[A], B], items: Sequence[A], description: str = "", progress: ProgressCallback | None = None
) -> Iterator[B]:
    """Do the same in processes if there are many items; ``work`` is a function of a module, or a partial of one.

    Where processes cannot be started (no shared memory), or one of them is killed (no memory), threads do the rest.
    """
    completed = 0
    may_start = not multiprocessing.current_process().daemon  # a process of multiprocessing.Pool may not
    if len(items) >= MIN_ITEMS_FOR_PROCESSES and available_cores() > 1 and may_start:
        try:
            for result in _in_processes(work, items):
                completed += 1
                yield result
                if progress:
                    progress(description, completed, len(items))
        except (BrokenExecutor, _CannotStart) as error:
            logger.debug("threads do the work of processes: %s", error)

    def report_rest(text: str, done: int, _: int) -> None:
        if progress:
            progress(text, completed + done, len(items))

    yield from parallel_map(work, items[completed:], description, report_rest)


class _CannotStart(RuntimeError):
    """Processes cannot be started on this machine."""


def _in_processes(work: Callable[[A], B], items: Sequence[A]) -> Iterator[B]:
    """Yield the results of new processes, which neither import the caller's main module nor inherit locks of threads.

    Those of ``multiprocessing`` do one or the other: a script without a main guard would run again.
    """
    from joblib.externals.loky import ProcessPoolExecutor

    try:
        pool: Executor = ProcessPoolExecutor(max_workers=available_cores(), initializer=_start_process)
    except (ImportError, OSError, NotImplementedError) as error:
        raise _CannotStart(str(error)) from error
    try:
        yield from pool.map(work, items, chunksize=CHUNK_SIZE)
    except BaseException:
        pool.shutdown(wait=True, kill_workers=True)  # type: ignore[call-arg]  # an option of loky
        raise
    pool.shutdown(wait=False)


def _start_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all processes, but this one decides
    _ignore_pillow_warnings()


def _ignore_pillow_warnings() -> None:
    warnings.filterwarnings("ignore", module="PIL")  # for example corrupt EXIF
