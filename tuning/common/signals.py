"""Ctrl-C and SIGTERM: the first signal requests a graceful shutdown, a second one ends the command immediately.

Under ``mlflow run`` one Ctrl-C arrives twice, as SIGINT from the terminal and as SIGTERM from mlflow, so that a second
signal within ``DEBOUNCE_S`` is ignored.
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
    """Handler of SIGINT and SIGTERM that records stop requests.

    By default the first signal raises KeyboardInterrupt, and so does each one that arrives more than ``DEBOUNCE_S``
    later. Inside ``on_first_signal`` the first signal calls a function instead; inside ``block_signals`` none raises.
    """

    def __init__(self, takes_over: bool = True) -> None:
        """Create the handler; one that does not take over leaves the signals to the program that calls Freezeline."""
        self._takes_over = takes_over
        self._last_s: float | None = None
        self._callback: Callable[[], None] | None = None
        self._blocked = False

    @property
    def stop_requested(self) -> bool:
        """Whether a signal was received."""
        return self._last_s is not None

    def handle(self, _signal: int, _frame: FrameType | None) -> None:
        """Handle a signal; this is the function that ``signal.signal`` installs."""
        now_s = time.monotonic()
        is_first = self._last_s is None
        if self._last_s is not None and now_s - self._last_s <= DEBOUNCE_S:
            return
        self._last_s = now_s
        if self._blocked:
            return
        if is_first and self._callback is not None:
            self._callback()
        else:
            raise KeyboardInterrupt

    @contextmanager
    def on_first_signal(self, callback: Callable[[], None]) -> Iterator[None]:
        """Context manager: the first signal calls ``callback`` instead of raising KeyboardInterrupt."""
        self._callback = callback
        try:
            yield
        finally:
            self._callback = None

    @contextmanager
    def block_signals(self) -> Iterator[None]:
        """Context manager: signals are recorded but do not raise; for short sections that must complete."""
        was_blocked, self._blocked = self._blocked, True
        try:
            yield
        finally:
            self._blocked = was_blocked

    def install(self) -> None:
        """Install the handler, also after a library has replaced it (``ray.init``); no-op outside the main thread."""
        if self._takes_over and threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self.handle)


@contextmanager
def handle_signals() -> Iterator[SignalHandler]:
    """Context manager: yield an installed ``SignalHandler``; on exit restore the previous handlers."""
    handler = SignalHandler()
    in_main_thread = threading.current_thread() is threading.main_thread()
    previous = {number: signal.getsignal(number) for number in SIGNALS} if in_main_thread else {}
    handler.install()
    try:
        yield handler
    finally:
        for number, previous_handler in previous.items():
            signal.signal(number, previous_handler)
