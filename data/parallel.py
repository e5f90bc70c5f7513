"""Work on many files at once, and tell how far it is."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")
Progress = Callable[[str, int, int], None]  # what is being done, how many are done, of how many


def parallel_map(
    work: Callable[[A], B],
    items: Sequence[A],
    what: str = "",
    progress: Progress | None = None,
    workers: int | None = None,
) -> Iterator[B]:
    """Yield ``work(item)`` in the order of the items; Pillow decodes outside Python's lock, so threads do.

    ``workers`` is the number of cores where none is given.
    What ``work`` raises is passed on; items that have not been begun are then not begun.
    """
    pool = ThreadPoolExecutor(max_workers=workers or os.cpu_count())
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # it remarks on broken tags that we can do without
            for done, result in enumerate(pool.map(work, items), start=1):
                yield result
                if progress:
                    progress(what, done, len(items))
    finally:
        pool.shutdown(cancel_futures=True)
