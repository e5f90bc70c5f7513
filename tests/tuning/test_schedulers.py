"""Trial schedulers, driven without Ray: which trials they stop, and after how many epochs.

The tests with the parameter ``name`` are the contract of every scheduler.
"""

from __future__ import annotations

import typing
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from tuning.recipe.schema import SchedulerName
from tuning.search.schedulers import EXCLUDED, MIN_SAMPLES_REQUIRED, NEVER_STOP, build_scheduler

NAMES = typing.get_args(SchedulerName)
STOPPING_NAMES = [name for name in NAMES if name != "none"]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> SchedulerName:
    scheduler_name: SchedulerName = request.param
    return scheduler_name


def stopping_epoch(scheduler: Any, trial_id: str, score: float, epochs: int, **config: object) -> int:
    """Run a trial with ``score`` in all epochs and in its final report; return the epoch of its stop, or 0."""
    trial = SimpleNamespace(trial_id=trial_id, config=config)
    scheduler.on_trial_add(None, trial)
    stopped_at, result = 0, {}
    for epoch in (*range(1, epochs + 1), epochs):
        result = {"epoch": epoch, "objective": score}
        if scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP:
            stopped_at = epoch
            break
    scheduler.on_trial_complete(None, trial, result)
    return stopped_at


def run_good_trials(scheduler: Any, epochs: int, count: int = MIN_SAMPLES_REQUIRED, score: float = 0.9) -> None:
    """Run as many good trials as the scheduler requires for a comparison."""
    stops = [stopping_epoch(scheduler, f"good {number}", score, epochs) for number in range(count)]
    assert stops == [0] * count


@pytest.mark.parametrize("max_epochs", [1, 2, 8, 9])
def test_the_best_trial_is_never_stopped_before_its_final_report(name: SchedulerName, max_epochs: int) -> None:
    scheduler = build_scheduler(name, max_epochs)
    scores = (0.3, 0.5, 0.6, 0.7, 0.7)
    stops = [stopping_epoch(scheduler, f"{number}", score, max_epochs) for number, score in enumerate(scores)]
    assert stops == [0] * 5


def test_a_trial_of_one_epoch_is_never_stopped(name: SchedulerName) -> None:
    scheduler = build_scheduler(name, 1)
    run_good_trials(scheduler, 1)
    assert stopping_epoch(scheduler, "poor", 0.1, 1) == 0


def test_a_trial_that_must_not_be_stopped_still_counts_in_comparisons(name: SchedulerName) -> None:
    scheduler = build_scheduler(name, 8)
    run_good_trials(scheduler, 8)
    assert stopping_epoch(scheduler, "default", 0.5, 8, **{NEVER_STOP: True}) == 0
    assert stopping_epoch(scheduler, "poor", 0.1, 8, **{NEVER_STOP: False}) == {"none": 0, "asha": 1, "median": 2}[name]


def test_an_excluded_trial_is_neither_stopped_nor_compared_with_others(name: SchedulerName) -> None:
    scheduler, trials = build_scheduler(name, 8), range(MIN_SAMPLES_REQUIRED)
    probes = [stopping_epoch(scheduler, f"probe {number}", 0.95, 8, **{EXCLUDED: True}) for number in trials]
    good = [stopping_epoch(scheduler, f"good {number}", 0.9, 8, **{EXCLUDED: False}) for number in trials]
    poor_probe = stopping_epoch(scheduler, "poor probe", 0.1, 8, **{EXCLUDED: True})
    assert (probes, good, poor_probe) == ([0] * MIN_SAMPLES_REQUIRED, [0] * MIN_SAMPLES_REQUIRED, 0)


def test_a_trial_can_fail_before_its_first_epoch(name: SchedulerName) -> None:
    scheduler: Any = build_scheduler(name, 8)
    run_good_trials(scheduler, 8)
    trial, failed = SimpleNamespace(trial_id="failed", config={}), {"epoch": 0, "objective": float("-inf")}
    scheduler.on_trial_add(None, trial)
    assert scheduler.on_trial_result(None, trial, failed) == TrialScheduler.CONTINUE
    scheduler.on_trial_complete(None, trial, failed)


def test_a_trial_whose_worker_was_lost_continues_and_repeats_epochs(name: SchedulerName) -> None:
    scheduler: Any = build_scheduler(name, 8)
    run_good_trials(scheduler, 8)
    trial = SimpleNamespace(trial_id="lost", config={})
    scheduler.on_trial_add(None, trial)
    results = [{"epoch": epoch, "objective": 0.95} for epoch in (1, 2, 3, 4)]
    decisions = [scheduler.on_trial_result(None, trial, result) for result in results]
    scheduler.on_trial_error(None, trial)
    decisions += [scheduler.on_trial_result(None, trial, result) for result in results[2:]]
    assert decisions == [TrialScheduler.CONTINUE] * 6


@pytest.mark.parametrize(
    ("name", "max_epochs", "grace_epochs"),
    [
        *(("median", *epochs) for epochs in ((2, 1), (4, 1), (5, 2), (8, 2), (16, 4), (100, 25))),
        *(("asha", *epochs) for epochs in ((2, 1), (8, 1), (9, 2), (16, 2), (100, 13))),
    ],
)
def test_a_poor_trial_is_stopped_after_a_quarter_of_the_epochs_or_an_eighth_by_asha(
    name: SchedulerName, max_epochs: int, grace_epochs: int
) -> None:
    scheduler = build_scheduler(name, max_epochs)
    run_good_trials(scheduler, max_epochs)
    assert stopping_epoch(scheduler, "poor", 0.1, max_epochs) == grace_epochs


def test_without_a_scheduler_no_trial_is_stopped() -> None:
    scheduler = build_scheduler("none", 8)
    run_good_trials(scheduler, 8)
    assert stopping_epoch(scheduler, "poor", 0.1, 8) == 0


def test_the_median_rule_requires_enough_trials_that_have_reached_the_epoch() -> None:
    scheduler = build_scheduler("median", 8)
    run_good_trials(scheduler, 8, MIN_SAMPLES_REQUIRED - 1)
    assert stopping_epoch(scheduler, "poor", 0.1, 8) == 0
    assert stopping_epoch(scheduler, "poorer", 0.05, 8) == 2


def test_the_median_rule_compares_the_best_score_with_the_mean_scores_of_other_trials() -> None:
    scheduler: Any = build_scheduler("median", 4)
    for number in range(MIN_SAMPLES_REQUIRED):
        trial = SimpleNamespace(trial_id=f"slow starter {number}", config={})
        scheduler.on_trial_add(None, trial)
        for epoch, score in enumerate((0.2, 0.4, 0.9, 0.9), start=1):  # means: 0.2, 0.3, 0.5, 0.6
            scheduler.on_trial_result(None, trial, {"epoch": epoch, "objective": score})
        scheduler.on_trial_complete(None, trial, {"epoch": 4, "objective": 0.9})
    assert stopping_epoch(scheduler, "below the mean", 0.35, 4) == 3
    assert stopping_epoch(scheduler, "above the mean", 0.61, 4) == 0
