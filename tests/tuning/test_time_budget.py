"""The clock of a search: it rings in time, once, and not before there is something to keep."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.tuning.factories import epoch_report, recipe, trial_record
from tuning.search.selection import LeadingPhase
from tuning.search.time_budget import TimeBudget, finalize_reserve_s, load_elapsed_s, probe_time_exhausted


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> float:
    """Have the process begun now."""
    now = time.time()
    monkeypatch.setattr("tuning.search.time_budget._process_start", lambda: now)
    return now


MakeClock = Callable[..., TimeBudget]


@pytest.fixture
def make_clock(begun: float, tmp_path: Path) -> MakeClock:
    """Return a maker of clocks of a process that has begun now."""
    del begun
    return partial(TimeBudget, elapsed_file=tmp_path / "spent")


def keep_an_epoch(clock: TimeBudget) -> None:
    clock.on_epoch_end(trial_record(), epoch_report(1, 0.5))


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
    assert (asked.max_trials, asked.budget_s) == (trials, seconds)


@pytest.mark.parametrize(("budget_s", "kept_s"), [(10, 3.5), (150, 52.5), (600, 75)])
def test_time_is_kept_for_what_comes_after_the_trials(budget_s: float, kept_s: float) -> None:
    assert finalize_reserve_s(budget_s) == pytest.approx(kept_s)


def test_without_minutes_the_time_is_never_over(make_clock: MakeClock) -> None:
    clock = make_clock(None)
    keep_an_epoch(clock)
    with clock.call_at_deadline(lambda: pytest.fail("rang")):
        assert not clock.is_exhausted


def test_the_clock_rings_once_when_the_time_is_over(make_clock: MakeClock) -> None:
    rung = threading.Event()
    clock = make_clock(0.1)
    keep_an_epoch(clock)
    with clock.call_at_deadline(rung.set):
        assert rung.wait(5)
    assert clock.is_exhausted


def test_a_search_has_its_first_epoch_however_short_its_minutes_are(make_clock: MakeClock) -> None:
    rung = threading.Event()
    clock = make_clock(0.01)
    with clock.call_at_deadline(rung.set):
        assert not rung.wait(0.1)
        assert not clock.is_exhausted
        keep_an_epoch(clock)
        assert rung.wait(5)


def test_a_search_whose_trials_all_fail_before_an_epoch_has_an_end(make_clock: MakeClock) -> None:
    clock = make_clock(0.01)
    time.sleep(0.02)
    clock.on_trial_end(trial_record(0, None, "failed"), None)
    assert clock.is_exhausted


def test_a_search_that_ends_before_its_time_hears_nothing(make_clock: MakeClock) -> None:
    clock = make_clock(3600)
    with clock.call_at_deadline(lambda: pytest.fail("rang")):
        keep_an_epoch(clock)
        assert not clock.is_exhausted
    assert not [thread for thread in threading.enumerate() if thread.name == "time-budget"]


@pytest.mark.parametrize(("lead", "over_s"), [("probes", 120), ("neither", 70), ("fine-tuning", 30)])
def test_the_sweep_has_the_more_of_the_trials_time_the_better_its_probes_do(
    begun: float, make_clock: MakeClock, monkeypatch: pytest.MonkeyPatch, lead: LeadingPhase, over_s: float
) -> None:
    now = begun
    monkeypatch.setattr("tuning.search.time_budget.time.time", lambda: now)
    clock = make_clock(275)
    now = begun + over_s - 1
    assert not probe_time_exhausted(clock.fraction_used, lambda: lead)
    now = begun + over_s + 1
    assert probe_time_exhausted(clock.fraction_used, lambda: lead)
    assert not probe_time_exhausted(make_clock(None).fraction_used, lambda: lead)


def test_a_share_of_the_time_is_kept_for_the_finals(
    begun: float, make_clock: MakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = begun
    monkeypatch.setattr("tuning.search.time_budget.time.time", lambda: now)
    clock, without = make_clock(275, finals=True), make_clock(275)
    now = begun + 161
    assert not clock.exploration_exhausted  # before there is anything to train again
    keep_an_epoch(clock)
    keep_an_epoch(without)
    assert clock.exploration_exhausted
    assert not without.exploration_exhausted
    assert not clock.is_exhausted
    slow, fast = (trial_record().model_copy(update={"history": ({"epoch_s": each},)}) for each in (35.0, 20.0))
    assert not clock.has_time_for(slow)
    assert clock.has_time_for(fast)


def test_a_resumed_search_has_the_time_that_is_left(
    begun: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, file = begun, tmp_path / "spent"
    monkeypatch.setattr("tuning.search.time_budget.time.time", lambda: now)
    first = TimeBudget(1075, file)
    now = begun + 400
    keep_an_epoch(first)
    assert load_elapsed_s(file) == pytest.approx(400, abs=0.1)
    second = TimeBudget(1075, file, has_progress=True, previous_s=load_elapsed_s(file))
    now = begun + 590
    assert not second.is_exhausted
    now = begun + 610
    assert second.is_exhausted
    keep_an_epoch(second)
    assert load_elapsed_s(file) == pytest.approx(1010, abs=0.1)


@pytest.mark.parametrize("content", [None, "", "soon"])
def test_a_search_whose_time_was_not_kept_has_taken_none(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "spent"
    if content is not None:
        file.write_text(content)
    assert load_elapsed_s(file) == 0.0
