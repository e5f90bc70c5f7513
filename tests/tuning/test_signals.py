"""Ctrl-C and SIGTERM: the first requests the end, a later one interrupts; both are acknowledged at once."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tuning.conftest import FakeClock
from tuning.common.signals import (
    GRACEFUL,
    IMMEDIATE,
    QUIT,
    SAME_KIND_DEBOUNCE_S,
    SIGNALS,
    SignalHandler,
    handle_signals,
    keep_handlers,
)


@pytest.fixture
def handler(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[SignalHandler]:
    monkeypatch.setattr("tuning.common.signals.time", clock)
    with handle_signals() as handler:
        yield handler


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_raises(handler: SignalHandler, number: signal.Signals) -> None:
    assert not handler.stop_requested
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        signal.raise_signal(number)
    assert handler.stop_requested


def test_a_sigterm_of_mlflow_shortly_after_a_sigint_is_ignored(handler: SignalHandler, clock: FakeClock) -> None:
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        signal.raise_signal(signal.SIGINT)
    clock.now_s += 1.9
    signal.raise_signal(signal.SIGTERM)
    assert handler.stop_requested


def test_a_handler_that_a_library_resets_in_c_is_restored() -> None:
    get, reset_in_c = ctypes.pythonapi.PyOS_getsig, ctypes.CDLL(None).signal
    reset_in_c.argtypes, get.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    with handle_signals() as handler, keep_handlers():
        handler_in_c = get(int(signal.SIGTERM))
        reset_in_c(signal.SIGTERM, None)
        deadline_s = time.monotonic() + 10
        while get(int(signal.SIGTERM)) != handler_in_c:
            assert time.monotonic() < deadline_s
            time.sleep(0.001)
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            signal.raise_signal(signal.SIGTERM)
    assert handler.stop_requested


def test_a_later_signal_raises_again(handler: SignalHandler, clock: FakeClock) -> None:
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            signal.raise_signal(signal.SIGINT)
        clock.now_s += 2.1
    assert handler.stop_requested


def test_the_first_signal_calls_the_callback_and_a_later_one_raises(handler: SignalHandler, clock: FakeClock) -> None:
    calls: list[str] = []
    with handler.on_first_signal(lambda: calls.append("called")):
        signal.raise_signal(signal.SIGINT)
        clock.now_s += 1
        signal.raise_signal(signal.SIGTERM)
        assert calls == ["called"]
        clock.now_s += 2.1
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            signal.raise_signal(signal.SIGINT)
    assert calls == ["called"]


def test_the_callback_is_not_called_after_the_context(handler: SignalHandler) -> None:
    calls: list[str] = []
    with handler.on_first_signal(lambda: calls.append("called")):
        pass
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        signal.raise_signal(signal.SIGINT)
    assert calls == []


def test_a_blocked_signal_is_recorded_and_does_not_raise(handler: SignalHandler, clock: FakeClock) -> None:
    with handler.block_signals():
        with handler.block_signals():
            signal.raise_signal(signal.SIGINT)
        clock.now_s += 10
        signal.raise_signal(signal.SIGTERM)
    assert handler.stop_requested
    clock.now_s += 10
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        signal.raise_signal(signal.SIGINT)


def test_a_held_key_is_one_signal_and_a_second_press_another(handler: SignalHandler, clock: FakeClock) -> None:
    num_interrupts = 0
    for pause_s in (0.1, 0.1, 0.5, 0.1, 1.0):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
            num_interrupts -= 1
        num_interrupts += 1
        clock.now_s += pause_s
    assert num_interrupts == 2


def wait_for(texts: list[str], count: int) -> list[str]:
    deadline_s = time.monotonic() + 10
    while len(texts) < count and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return texts


def test_signals_are_acknowledged_while_a_library_keeps_the_main_thread_busy() -> None:
    texts: list[str] = []
    before = signal.set_wakeup_fd(-1)
    with handle_signals(texts.append) as handler, handler.on_first_signal(lambda: None):
        signal.raise_signal(signal.SIGINT)
        assert wait_for(texts, 1) == [f"Ctrl-C: {GRACEFUL}"]
        signal.raise_signal(signal.SIGTERM)  # of mlflow run, for the same Ctrl-C
        time.sleep(SAME_KIND_DEBOUNCE_S + 0.05)
    assert texts == [f"Ctrl-C: {GRACEFUL}"]
    assert signal.set_wakeup_fd(before) == -1, "the previous descriptor is restored"


BUSY = """
import time
from tuning.common import signals
signals.QUIT_TIMEOUT_S = 0.2
with signals.handle_signals(lambda text: print(text, flush=True)) as handler, handler.block_signals():
    print("busy", flush=True)
    while True:
        time.sleep(30)
"""


def test_a_second_signal_ends_a_busy_process_with_status_130() -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "busy\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == f"Ctrl-C: {IMMEDIATE}\n"
        time.sleep(SAME_KIND_DEBOUNCE_S + 0.05)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == f"Ctrl-C: {QUIT}\n"
        assert process.wait(10) == 130


def test_install_replaces_the_handlers_of_a_library(handler: SignalHandler) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    handler.install()
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        signal.raise_signal(signal.SIGTERM)


def test_the_previous_handlers_are_restored() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    inside: list[object] = []

    def fail() -> None:
        with handle_signals():
            inside.extend(signal.getsignal(number) for number in SIGNALS)
            raise RuntimeError("ended")

    with pytest.raises(RuntimeError, match="ended"):
        fail()
    assert inside != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_side_thread_installs_no_handlers() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    results: list[bool] = []

    def work() -> None:
        with handle_signals() as handler:
            results.append(handler.stop_requested)
            results.append([signal.getsignal(number) for number in SIGNALS] == before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert results == [False, True]


def test_a_repeated_sighup_is_no_second_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell and the kernel may both send it when a terminal is closed."""
    stopped: list[bool] = []
    with handle_signals() as handler, handler.on_first_signal(lambda: stopped.append(True)):
        signal.raise_signal(signal.SIGHUP)
        now_s = time.monotonic()
        monkeypatch.setattr("tuning.common.signals.time.monotonic", lambda: now_s + 60)
        signal.raise_signal(signal.SIGHUP)
        assert stopped == [True]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


CLOSED_TERMINAL = """
import sys, time
from pathlib import Path
from tuning.common.signals import handle_signals
stopped = []
with handle_signals(print) as handler, handler.on_first_signal(lambda: stopped.append(1)):
    print("ready", flush=True)
    while not stopped:
        time.sleep(0.05)
    print("after the terminal was closed", flush=True)
    print("the same", file=sys.stderr, flush=True)
    Path(sys.argv[1]).write_text("saved")
"""


def test_a_closed_terminal_stops_gracefully_and_nothing_is_written_to_it(tmp_path: Path) -> None:
    controller, terminal = os.openpty()
    command = [sys.executable, "-c", CLOSED_TERMINAL, str(tmp_path / "file")]
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True)
    os.close(terminal)
    assert b"ready" in os.read(controller, 100)
    os.close(controller)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=30) == 0
    assert (tmp_path / "file").read_text() == "saved"


def test_sighup_stays_ignored_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handle_signals() as handler:
            signal.raise_signal(signal.SIGHUP)
            assert not handler.stop_requested
    finally:
        signal.signal(signal.SIGHUP, before)
