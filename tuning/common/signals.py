"""Ctrl-C, SIGTERM and SIGHUP (a closed terminal): the first requests a graceful shutdown, a second ends the command.

Python calls signal handlers in the main thread, which may spend seconds inside a library. A thread that reads the
signals from a pipe acknowledges each at once, and ends the process if the main thread does not.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from tuning.common.background import background_thread
from tuning.common.exit_codes import INTERRUPTED

# Under mlflow run one Ctrl-C arrives twice, as SIGINT from the terminal and as SIGTERM from mlflow.
OTHER_KIND_DEBOUNCE_S = 2.0
SAME_KIND_DEBOUNCE_S = 0.3  # a key that is held down
QUIT_TIMEOUT_S = 5.0  # from the second signal to the forced end of the process
RESET_POLL_S = 0.005  # how long a library's reset of the handlers may last
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SIGNAL_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}
OUTPUTS = (1, 2)  # file descriptors of standard output and standard error
GRACEFUL = "stopping trials, packaging the best so far (about 20 s). Press again to quit now."
IMMEDIATE = "stopping."
QUIT = "quitting now."


class Debouncer:
    """Decides which signals are requests of the user, and which repeat the last one."""

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None

    @property
    def has_accepted(self) -> bool:
        """Whether a signal was accepted."""
        return self._last is not None

    def accepts(self, number: int) -> bool:
        """Return whether a signal that arrives now is a new request."""
        now_s = time.monotonic()
        if self._last is not None:
            if number == signal.SIGHUP:  # the shell and the kernel may both send it, and a user cannot repeat it
                return False
            last_number, last_s = self._last
            debounce_s = SAME_KIND_DEBOUNCE_S if number == last_number else OTHER_KIND_DEBOUNCE_S
            if now_s - last_s <= debounce_s:
                return False
        self._last = (number, now_s)
        return True


class SignalHandler:
    """Handler of SIGINT, SIGTERM and SIGHUP that records stop requests.

    By default each accepted signal raises KeyboardInterrupt. Inside ``on_first_signal`` the first one calls a function
    instead; inside ``block_signals`` none raises.
    """

    def __init__(self, takes_over: bool = True) -> None:
        """Create the handler; one that does not take over leaves the signals to the program that calls Freezeline."""
        self._takes_over = takes_over
        self._debouncer = Debouncer()
        self._callback: Callable[[], None] | None = None
        self._blocked = False
        self._signals: tuple[signal.Signals, ...] = SIGNALS
        if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # nohup: the command survives its terminal
            self._signals = (signal.SIGINT, signal.SIGTERM)
        self._terminals = tuple(number for number in OUTPUTS if _is_terminal(number))

    @property
    def stop_requested(self) -> bool:
        """Whether a signal was received."""
        return self._debouncer.has_accepted

    @property
    def is_graceful(self) -> bool:
        """Whether the first signal lets the command finish its work."""
        return self._callback is not None

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal; this is the function that ``signal.signal`` installs."""
        is_first = not self.stop_requested
        self.leave_terminal(number)
        if not self._debouncer.accepts(number) or self._blocked:
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
            for number in self._signals:
                signal.signal(number, self.handle)

    def leave_terminal(self, number: int) -> None:
        """After SIGHUP, send the output for the closed terminal to the null device: a write would raise OSError."""
        if number != signal.SIGHUP or not self._takes_over:
            return
        terminals, self._terminals = self._terminals, ()
        for output in terminals:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, output)
            os.close(null)


def _is_terminal(output: int) -> bool:
    try:
        return os.isatty(output)
    except OSError:  # it is closed
        return False


@contextmanager
def handle_signals(acknowledge: Callable[[str], None] | None = None) -> Iterator[SignalHandler]:
    """Context manager: yield an installed ``SignalHandler``; on exit restore the previous handlers.

    ``acknowledge`` gets a sentence within moments of each signal, in another thread. A second signal then ends the
    process with exit status 130 after at most ``QUIT_TIMEOUT_S``, also while the interpreter and Ray shut down.
    """
    handler = SignalHandler()
    if threading.current_thread() is not threading.main_thread():
        yield handler
        return
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    handler.install()
    try:
        if acknowledge is None:
            yield handler
        else:
            with Acknowledger(handler, acknowledge).running():
                yield handler
    finally:
        for number, previous_handler in previous.items():
            signal.signal(number, previous_handler)


@contextmanager
def keep_handlers() -> Iterator[None]:
    """Context manager: handlers that a library resets in C, in any thread, are restored within milliseconds.

    Ray's ``shutdown`` resets the one of SIGTERM to the default, which would end the process; Python does not notice.
    """
    get, restore = ctypes.pythonapi.PyOS_getsig, ctypes.pythonapi.PyOS_setsig
    get.restype = restore.restype = ctypes.c_void_p
    restore.argtypes = (ctypes.c_int, ctypes.c_void_p)
    handlers = {number: get(int(number)) for number in SIGNALS}

    def restore_all() -> None:
        for number, handler in handlers.items():
            if get(int(number)) != handler:
                restore(int(number), handler)

    def watch(stop_event: threading.Event) -> None:
        while not stop_event.wait(RESET_POLL_S):
            restore_all()

    try:
        with background_thread("signal handlers", watch):
            yield
    finally:
        restore_all()


class Acknowledger:
    """Reads the numbers of the signals, which Python writes into a pipe as they arrive, in a thread."""

    def __init__(self, handler: SignalHandler, acknowledge: Callable[[str], None]) -> None:
        self._handler = handler
        self._acknowledge = acknowledge
        self._quit_timer: threading.Timer | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Context manager: acknowledge signals; in the main thread only."""
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        previous = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        thread = threading.Thread(target=self._watch, args=(read_end,), name="signals", daemon=True)
        thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(previous)
            os.close(write_end)
            thread.join()
            os.close(read_end)

    def _watch(self, read_end: int) -> None:
        """Acknowledge the signals until the pipe is closed."""
        debouncer = Debouncer()
        while numbers := os.read(read_end, 64):
            for number in numbers:
                is_first = not debouncer.has_accepted
                if number in SIGNALS and debouncer.accepts(number):
                    self._acknowledge_one(signal.Signals(number), is_first)

    def _acknowledge_one(self, number: signal.Signals, is_first: bool) -> None:
        if not is_first and self._quit_timer is None:
            self._quit_timer = threading.Timer(QUIT_TIMEOUT_S, os._exit, (INTERRUPTED,))
            self._quit_timer.daemon = True
            self._quit_timer.start()
        self._handler.leave_terminal(number)
        text = (GRACEFUL if self._handler.is_graceful else IMMEDIATE) if is_first else QUIT
        with contextlib.suppress(OSError):  # the terminal or the reader of a pipe is gone
            self._acknowledge(f"{SIGNAL_NAMES[number]}: {text}")
