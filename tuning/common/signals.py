"""Ctrl-C and SIGTERM, as one polite request to end and, if repeated, an order.

Under ``mlflow run`` one Ctrl-C reaches us twice, as SIGINT from the terminal and as SIGTERM from mlflow: a second
signal within ``DEBOUNCE_S`` is the same request.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

DEBOUNCE_S = 2.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SignalHandler:
    """Whether the user asked to end, and what a signal does at the moment.

    By default the first signal raises KeyboardInterrupt, and so does one that comes more than ``DEBOUNCE_S``
    later. Within ``deferred`` the first calls a function instead; within ``shielded`` none raises.
    """

    def __init__(self) -> None:
        self._last_s: float | None = None
        self._on_request: Callable[[], None] | None = None
        self._shielded = False

    @property
    def stop_requested(self) -> bool:
        """Whether a signal came."""
        return self._last_s is not None

    def handle(self, _signal: int, _frame: FrameType | None) -> None:
        """Take a signal."""
        now_s = time.monotonic()
        first, repeated = self._last_s is None, self._last_s is not None and now_s - self._last_s <= DEBOUNCE_S
        if repeated:
            return
        self._last_s = now_s
        if self._shielded:
            return
        if first and self._on_request is not None:
            self._on_request()
        else:
            raise KeyboardInterrupt

    @contextmanager
    def on_first_signal(self, on_request: Callable[[], None]) -> Iterator[None]:
        """Within: the first signal calls ``on_request`` instead of raising KeyboardInterrupt."""
        self._on_request = on_request
        try:
            yield
        finally:
            self._on_request = None

    @contextmanager
    def block_signals(self) -> Iterator[None]:
        """Within: a signal is remembered and raises nothing; for short ends that must be reached."""
        before, self._shielded = self._shielded, True
        try:
            yield
        finally:
            self._shielded = before

    def install(self) -> None:
        """Take SIGINT and SIGTERM, also from a library that took them (``ray.init``); a no-op in a side thread."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self.handle)


@contextmanager
def handle_signals() -> Iterator[SignalHandler]:
    """Within: SIGINT and SIGTERM go to the ``SignalHandler`` that is yielded; afterwards to whoever had them before."""
    interrupts = SignalHandler()
    in_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in SIGNALS} if in_main else {}
    interrupts.install()
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
