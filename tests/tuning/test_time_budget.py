"""The time budget: the deadline is called in time, once, and not before there is progress."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from models.trial_config import FitConfig
from tests.tuning.factories import epoch_report, recipe, trial_record
from tuning.search.time_budget import Elapsed, TimeBudget, estimate_evaluation_s, estimate_finalize_s


@pytest.fixture
def start_s() -> float:
    """Return the start of the command: now."""
    return time.time()


MakeTimeBudget = Callable[..., TimeBudget]


@pytest.fixture
def make_time_budget(start_s: float, tmp_path: Path) -> MakeTimeBudget:
    """Return a factory of time budgets of a command that starts now."""
    return partial(TimeBudget, elapsed_file=tmp_path / "elapsed_s", started_s=start_s)


def end_epoch(time_budget: TimeBudget) -> None:
    time_budget.on_epoch_end(trial_record(), epoch_report(1, 0.5))


@pytest.mark.parametrize(
    ("options", "trials", "seconds"),
    [
        ({}, 16, 300.0),
        ({"trials": "3"}, 3, None),
        ({"minutes": "0.5"}, None, 30.0),
        ({"trials": "3", "minutes": "2"}, 3, 120.0),
    ],
)
def test_a_budget_is_trials_minutes_or_both(options: dict[str, str], trials: int | None, seconds: float | None) -> None:
    limited = recipe(**options)
    assert (limited.max_trials, limited.budget_s) == (trials, seconds)


@pytest.mark.parametrize(("startup_s", "expected_s"), [(2, 15), (20, 28), (1000, 60)])
def test_the_work_after_the_trials_is_estimated_from_the_startup(startup_s: float, expected_s: float) -> None:
    assert estimate_finalize_s(startup_s) == pytest.approx(expected_s)


@pytest.mark.parametrize(
    ("s_per_image", "latency_ms", "expected_s"),
    [([], None, 0), ([5.0, 0.1, 0.1, 0.2], None, 7), ([0.4], None, 28), ([0.4], 30.0, 3)],
)
def test_the_evaluation_is_estimated_from_the_probes_and_then_from_the_latency_of_the_likely_winner(
    s_per_image: list[float], latency_ms: float | None, expected_s: float
) -> None:
    assert estimate_evaluation_s(100, s_per_image, latency_ms) == pytest.approx(expected_s)


def test_less_time_is_kept_once_the_export_of_the_likely_winner_has_begun(
    start_s: float, make_time_budget: MakeTimeBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = start_s
    monkeypatch.setattr("tuning.search.time_budget.time.time", lambda: now)
    time_budget = make_time_budget(300)
    now = start_s + 30
    time_budget.start_trials()
    assert time_budget.seconds_left == pytest.approx(300 - 30 - 21 - 21)
    time_budget.export_has_begun = True
    assert time_budget.seconds_left == pytest.approx(300 - 30 - 21)


def test_a_slow_start_and_slow_probes_end_the_trials_earlier(
    start_s: float, make_time_budget: MakeTimeBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = start_s
    monkeypatch.setattr("tuning.search.time_budget.time.time", lambda: now)
    time_budget = make_time_budget(300, num_test_images=60, num_export_images=40)
    now = start_s + 20
    time_budget.start_trials()
    assert time_budget.seconds_left == pytest.approx(300 - 20 - 28)
    probe = trial_record(1)
    fit = FitConfig(optimizer="lbfgs", max_epochs=1)
    network = probe.config.network.model_copy(update={"freeze_fraction": 1.0, "head_features": "all"})
    changes = {
        "config": probe.config.model_copy(update={"fit": fit, "network": network}),
        "history": ({**probe.history[0], "images_per_s": 5.0},),
    }
    time_budget.on_trial_end(probe.model_copy(update=changes), None)
    assert time_budget.seconds_left == pytest.approx(300 - 20 - 28 - 0.7 * 100 / 5)
    time_budget.latency_ms = 50.0  # exported: only the test images are left
    assert time_budget.seconds_left == pytest.approx(300 - 20 - 28 - 60 * 0.05)


def test_without_minutes_the_time_is_never_exhausted(make_time_budget: MakeTimeBudget) -> None:
    time_budget = make_time_budget(None)
    end_epoch(time_budget)
    with time_budget.call_at_deadline(lambda: pytest.fail("called")):
        assert not time_budget.is_exhausted


def test_the_function_is_called_at_the_deadline(make_time_budget: MakeTimeBudget) -> None:
    called = threading.Event()
    time_budget = make_time_budget(0.1)
    end_epoch(time_budget)
    with time_budget.call_at_deadline(called.set):
        assert called.wait(5)
    assert time_budget.is_exhausted


def test_a_search_completes_its_first_epoch_even_after_the_deadline(make_time_budget: MakeTimeBudget) -> None:
    called = threading.Event()
    time_budget = make_time_budget(0.01)
    with time_budget.call_at_deadline(called.set):
        assert not called.wait(0.1)
        assert not time_budget.is_exhausted
        end_epoch(time_budget)
        assert called.wait(5)


def test_the_time_of_a_search_is_exhausted_even_if_all_trials_fail(make_time_budget: MakeTimeBudget) -> None:
    time_budget = make_time_budget(0.01)
    time.sleep(0.02)
    time_budget.on_trial_end(trial_record(0, None, "failed"), None)
    assert time_budget.is_exhausted


def test_the_function_is_not_called_if_the_search_ends_before_the_deadline(make_time_budget: MakeTimeBudget) -> None:
    time_budget = make_time_budget(3600)
    with time_budget.call_at_deadline(lambda: pytest.fail("called")):
        end_epoch(time_budget)
        assert not time_budget.is_exhausted
    assert not [thread for thread in threading.enumerate() if thread.name == "time-budget"]


def test_the_used_fraction_and_the_seconds_left_are_those_of_the_trials(
    start_s: float, make_time_budget: MakeTimeBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = start_s
    monkeypatch.setattr("tuning.search.time_budget.time.time", lambda: now)
    limited, unlimited = make_time_budget(215), make_time_budget(None)
    now = start_s + 50
    assert (limited.fraction_used, limited.seconds_left) == (pytest.approx(0.25), pytest.approx(150))
    assert (unlimited.fraction_used, unlimited.seconds_left) == (0.0, math.inf)


def test_the_time_before_the_first_trial_is_not_a_part_of_the_trials_time(
    start_s: float, make_time_budget: MakeTimeBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = start_s
    monkeypatch.setattr("tuning.search.time_budget.time.time", lambda: now)
    time_budget = make_time_budget(260)
    now = start_s + 100  # resizing images, starting Ray
    time_budget.start_trials()
    assert (time_budget.fraction_used, time_budget.seconds_left) == (0.0, pytest.approx(100))
    now = start_s + 150
    assert time_budget.fraction_used == pytest.approx(0.5)


def test_a_resumed_search_has_the_remaining_time(
    start_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, file = start_s, tmp_path / "elapsed_s"
    monkeypatch.setattr("tuning.search.time_budget.time.time", lambda: now)
    first = TimeBudget(1060, file, start_s)
    now = start_s + 400
    end_epoch(first)
    assert Elapsed.load(file).counted_s == pytest.approx(400, abs=0.1)
    second = TimeBudget(1060, file, start_s, has_progress=True, previous=Elapsed.load(file))
    now = start_s + 590
    assert not second.is_exhausted
    now = start_s + 610
    assert second.is_exhausted
    end_epoch(second)
    assert Elapsed.load(file).counted_s == pytest.approx(1010, abs=0.1)


def test_the_time_of_earlier_budgets_is_kept_and_does_not_count(start_s: float, tmp_path: Path) -> None:
    file = tmp_path / "elapsed_s"
    Elapsed(0.0, 128.0).save(file)
    resumed = TimeBudget(60, file, start_s, previous=Elapsed.load(file))
    assert resumed.ends_s == start_s + 60
    assert resumed.elapsed.total_s == pytest.approx(128, abs=5)
    resumed.save()
    assert Elapsed.load(file).earlier_s == 128.0


@pytest.mark.parametrize("content", [None, "", "soon", "1 2 3"])
def test_without_a_valid_file_the_elapsed_time_is_zero(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "elapsed_s"
    if content is not None:
        file.write_text(content)
    assert Elapsed.load(file) == Elapsed(0.0, 0.0)
