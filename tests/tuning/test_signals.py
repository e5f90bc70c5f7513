"""Ctrl-C and SIGTERM: the first is a request, the same within two seconds is the same, a later one is an order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from tests.tuning.conftest import FakeClock
from tuning.common.signals import SIGNALS, SignalHandler, handle_signals


@pytest.fixture
def interrupts(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[SignalHandler]:
    monkeypatch.setattr("tuning.common.signals.time", clock)
    with handle_signals() as interrupts:
        yield interrupts


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_raises(interrupts: SignalHandler, number: signal.Signals) -> None:
    assert not interrupts.stop_requested
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        signal.raise_signal(number)
    assert interrupts.stop_requested


def test_mlflows_sigterm_after_the_terminals_sigint_is_the_same_request(
    interrupts: SignalHandler, clock: FakeClock
) -> None:
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        signal.raise_signal(signal.SIGINT)
    clock.now_s += 1.9
    signal.raise_signal(signal.SIGTERM)
    assert interrupts.stop_requested


def test_a_later_signal_raises_again(interrupts: SignalHandler, clock: FakeClock) -> None:
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            signal.raise_signal(signal.SIGINT)
        clock.now_s += 2.1
    assert interrupts.stop_requested


def test_a_deferred_signal_calls_the_function_and_a_later_one_raises(
    interrupts: SignalHandler, clock: FakeClock
) -> None:
    calls: list[str] = []
    with interrupts.on_first_signal(lambda: calls.append("called")):
        signal.raise_signal(signal.SIGINT)
        clock.now_s += 1
        signal.raise_signal(signal.SIGTERM)
        assert calls == ["called"]
        clock.now_s += 2.1
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            signal.raise_signal(signal.SIGINT)
    assert calls == ["called"]


def test_the_function_is_called_only_while_it_is_deferred(interrupts: SignalHandler) -> None:
    calls: list[str] = []
    with interrupts.on_first_signal(lambda: calls.append("called")):
        pass
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        signal.raise_signal(signal.SIGINT)
    assert calls == []


def test_a_shielded_signal_is_remembered_and_raises_nothing(interrupts: SignalHandler, clock: FakeClock) -> None:
    with interrupts.block_signals():
        with interrupts.block_signals():
            signal.raise_signal(signal.SIGINT)
        clock.now_s += 10
        signal.raise_signal(signal.SIGTERM)
    assert interrupts.stop_requested
    clock.now_s += 10
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        signal.raise_signal(signal.SIGINT)


def test_whoever_keeps_pressing_is_heard_after_two_seconds(interrupts: SignalHandler, clock: FakeClock) -> None:
    orders = 0
    for _ in range(6):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            orders += 1
        clock.now_s += 1
    assert interrupts.stop_requested
    assert orders >= 2


def test_a_library_that_took_the_signals_loses_them_to_install(interrupts: SignalHandler) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    interrupts.install()
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        signal.raise_signal(signal.SIGTERM)


def test_afterwards_the_signals_go_to_whoever_had_them_before() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    within: list[object] = []

    def end() -> None:
        with handle_signals():
            within.extend(signal.getsignal(number) for number in SIGNALS)
            raise RuntimeError("ended")

    with pytest.raises(RuntimeError, match="ended"):
        end()
    assert within != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_side_thread_takes_no_signals() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    seen: list[bool] = []

    def work() -> None:
        with handle_signals() as interrupts:
            seen.append(interrupts.stop_requested)
            seen.append([signal.getsignal(number) for number in SIGNALS] == before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert seen == [False, True]
