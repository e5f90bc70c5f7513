"""Ctrl-C and SIGTERM, as one polite request to end and, if repeated, an order.

Under ``mlflow run`` one Ctrl-C reaches us twice, as SIGINT from the terminal and as SIGTERM from mlflow: a second
signal within ``SAME_REQUEST_S`` is the same request.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SAME_REQUEST_S = 2.0


class Interrupts:
    """Whether the user asked to end; ``requested`` is set by the first signal."""

    def __init__(self) -> None:
        self._first_s: float | None = None
        self._on_request: Callable[[], None] | None = None

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return self._first_s is not None

    def handle(self, _signal: int, _frame: FrameType | None) -> None:
        """Take a signal: the first is a request, the same one again is nothing, a later one raises."""
        now_s = time.monotonic()
        if self._first_s is not None:
            if now_s - self._first_s > SAME_REQUEST_S:
                raise KeyboardInterrupt
            return
        self._first_s = now_s
        if self._on_request is None:
            raise KeyboardInterrupt
        self._on_request()

    @contextmanager
    def deferred(self, on_request: Callable[[], None]) -> Iterator[None]:
        """Within: the first signal calls ``on_request`` instead of raising KeyboardInterrupt."""
        self._on_request = on_request
        try:
            yield
        finally:
            self._on_request = None


@contextmanager
def caught() -> Iterator[Interrupts]:
    """Within: SIGINT and SIGTERM go to the ``Interrupts`` that is yielded. Anywhere but in the main thread: no-op."""
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = {number: signal.signal(number, interrupts.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def install_again(interrupts: Interrupts) -> None:
    """Take the signals back from a library that has replaced our handlers (``ray.init`` takes SIGTERM)."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, interrupts.handle)
