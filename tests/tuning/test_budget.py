"""The clock of a search: it rings in time, once, and not before there is something to keep."""

from __future__ import annotations

import threading
import time

import pytest

from tests.tuning.making import epoch, recipe, trial_result
from tuning.search.budget import Clock, reserve_s


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> float:
    """Have the process begun now."""
    now = time.time()
    monkeypatch.setattr("tuning.search.budget._process_began", lambda: now)
    return now


def keep_an_epoch(clock: Clock) -> None:
    clock.epoch_ended(trial_result(), epoch(1, 0.5))


@pytest.mark.parametrize(
    ("texts", "trials", "seconds"),
    [
        ({}, 16, 300.0),
        ({"trials": "3"}, 3, None),
        ({"minutes": "0.5"}, None, 30.0),
        ({"trials": "3", "minutes": "2"}, 3, 120.0),
    ],
)
def test_a_budget_is_trials_minutes_or_both(texts: dict[str, str], trials: int | None, seconds: float | None) -> None:
    asked = recipe(**texts)
    assert (asked.most_trials, asked.budget_s) == (trials, seconds)


@pytest.mark.parametrize(("budget_s", "kept_s"), [(10, 3), (150, 45), (600, 45)])
def test_time_is_kept_for_what_comes_after_the_trials(budget_s: float, kept_s: float) -> None:
    assert reserve_s(budget_s) == pytest.approx(kept_s)


@pytest.mark.usefixtures("begun")
def test_without_minutes_the_time_is_never_over() -> None:
    clock = Clock(None)
    keep_an_epoch(clock)
    with clock.ringing(lambda: pytest.fail("rang")):
        assert not clock.over


@pytest.mark.usefixtures("begun")
def test_the_clock_rings_once_when_the_time_is_over() -> None:
    rung = threading.Event()
    clock = Clock(0.1)
    keep_an_epoch(clock)
    with clock.ringing(rung.set):
        assert rung.wait(5)
    assert clock.over


@pytest.mark.usefixtures("begun")
def test_a_search_has_its_first_epoch_however_short_its_minutes_are() -> None:
    rung = threading.Event()
    clock = Clock(0.01)
    with clock.ringing(rung.set):
        assert not rung.wait(0.1)
        assert not clock.over
        keep_an_epoch(clock)
        assert rung.wait(5)


@pytest.mark.usefixtures("begun")
def test_a_search_whose_trials_all_fail_before_an_epoch_has_an_end() -> None:
    clock = Clock(0.01)
    time.sleep(0.02)
    clock.trial_ended(trial_result(0, None, "failed"), None)
    assert clock.over


@pytest.mark.usefixtures("begun")
def test_a_search_that_ends_before_its_time_hears_nothing() -> None:
    clock = Clock(3600)
    with clock.ringing(lambda: pytest.fail("rang")):
        keep_an_epoch(clock)
        assert not clock.over
    assert not [thread for thread in threading.enumerate() if thread.name == "search-clock"]


def test_the_sweep_has_half_of_the_trials_time(begun: float, monkeypatch: pytest.MonkeyPatch) -> None:
    now = begun
    monkeypatch.setattr("tuning.search.budget.time.time", lambda: now)
    clock = Clock(245)
    now = begun + 99
    assert not clock.sweep_over
    now = begun + 101
    assert clock.sweep_over
    assert not Clock(None).sweep_over
