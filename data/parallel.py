"""Parallel map over files, with progress reports."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from data.machine import available_cores

A = TypeVar("A")
B = TypeVar("B")
ProgressCallback = Callable[[str, int, int], None]  # description of the work, completed items, total items


def parallel_map(
    work: Callable[[A], B],
    items: Sequence[A],
    description: str = "",
    progress: ProgressCallback | None = None,
    max_workers: int | None = None,
) -> Iterator[B]:
    """Yield ``work(item)`` in the order of the items, computed in threads (Pillow releases the GIL while decoding).

    An exception in ``work`` is re-raised, and items that have not started are canceled. By default there is a thread
    for each of the ``available_cores``.
    """
    pool = ThreadPoolExecutor(max_workers=max_workers or available_cores())
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # for example corrupt EXIF
            for completed, result in enumerate(pool.map(work, items), start=1):
                yield result
                if progress:
                    progress(description, completed, len(items))
    finally:
        pool.shutdown(cancel_futures=True)
