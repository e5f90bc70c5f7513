"""What stops a hopeless trial early, and how many epochs it gets before: the schedulers are driven without Ray.

The tests that take ``name`` are the contract of every scheduler.
"""

from __future__ import annotations

import typing
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from tuning.search.schedulers import EXCLUDED, MIN_SAMPLES_REQUIRED, NEVER_STOP, SchedulerName, build_scheduler

NAMES = typing.get_args(SchedulerName)
STOPPING = [name for name in NAMES if name != "none"]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> SchedulerName:
    given: SchedulerName = request.param
    return given


def epochs_run(scheduler: Any, trial_id: str, score: float, epochs: int, **config: object) -> int:
    """Run a trial of that many epochs and a last word, all with ``compute_metrics``; return where it was stopped, or 0."""
    trial = SimpleNamespace(trial_id=trial_id, config=config)
    scheduler.on_trial_add(None, trial)
    stopped, result = 0, {}
    for epoch in (*range(1, epochs + 1), epochs):
        result = {"epoch": epoch, "objective": score}
        if scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP:
            stopped = epoch
            break
    scheduler.on_trial_complete(None, trial, result)
    return stopped


def good_ones(scheduler: Any, epochs: int, count: int = MIN_SAMPLES_REQUIRED, score: float = 0.9) -> None:
    """Run as many good trials as it takes for others to be judged by them."""
    assert [epochs_run(scheduler, f"good {at}", score, epochs) for at in range(count)] == [0] * count


@pytest.mark.parametrize("max_epochs", [1, 2, 8, 9])
def test_the_best_trial_is_never_stopped_nor_its_last_word_cut_off(name: SchedulerName, max_epochs: int) -> None:
    scheduler = build_scheduler(name, max_epochs)
    scores = (0.3, 0.5, 0.6, 0.7, 0.7)
    assert [epochs_run(scheduler, f"{at}", score, max_epochs) for at, score in enumerate(scores)] == [0] * 5


def test_a_trial_of_one_epoch_is_never_stopped(name: SchedulerName) -> None:
    scheduler = build_scheduler(name, 1)
    good_ones(scheduler, 1)
    assert epochs_run(scheduler, "hopeless", 0.1, 1) == 0


def test_a_protected_trial_is_never_stopped_and_the_others_are_judged_by_it(name: SchedulerName) -> None:
    scheduler = build_scheduler(name, 8)
    good_ones(scheduler, 8)
    assert epochs_run(scheduler, "default", 0.5, 8, **{NEVER_STOP: True}) == 0
    assert epochs_run(scheduler, "hopeless", 0.1, 8, **{NEVER_STOP: False}) == (0 if name == "none" else 2)


def test_a_probe_is_neither_stopped_nor_held_against_others(name: SchedulerName) -> None:
    scheduler = build_scheduler(name, 8)
    probes = [epochs_run(scheduler, f"probe {at}", 0.95, 8, **{EXCLUDED: True}) for at in range(MIN_SAMPLES_REQUIRED)]
    good = [epochs_run(scheduler, f"good {at}", 0.9, 8, **{EXCLUDED: False}) for at in range(MIN_SAMPLES_REQUIRED)]
    poor = epochs_run(scheduler, "poor probe", 0.1, 8, **{EXCLUDED: True})
    assert (probes, good, poor) == ([0] * MIN_SAMPLES_REQUIRED, [0] * MIN_SAMPLES_REQUIRED, 0)


def test_a_trial_can_fail_before_its_first_epoch(name: SchedulerName) -> None:
    scheduler: Any = build_scheduler(name, 8)
    good_ones(scheduler, 8)
    trial, failed = SimpleNamespace(trial_id="failed", config={}), {"epoch": 0, "objective": float("-inf")}
    scheduler.on_trial_add(None, trial)
    assert scheduler.on_trial_result(None, trial, failed) == TrialScheduler.CONTINUE
    scheduler.on_trial_complete(None, trial, failed)


def test_a_trial_whose_worker_was_lost_goes_on_and_hears_no_epoch_twice(name: SchedulerName) -> None:
    scheduler: Any = build_scheduler(name, 8)
    good_ones(scheduler, 8)
    trial = SimpleNamespace(trial_id="lost", config={})
    scheduler.on_trial_add(None, trial)
    told = [{"epoch": epoch, "objective": 0.95} for epoch in (1, 2, 3, 4)]
    decisions = [scheduler.on_trial_result(None, trial, result) for result in told]
    scheduler.on_trial_error(None, trial)
    decisions += [scheduler.on_trial_result(None, trial, result) for result in told[2:]]
    assert decisions == [TrialScheduler.CONTINUE] * 6


@pytest.mark.parametrize("name", STOPPING)
@pytest.mark.parametrize(("max_epochs", "grace"), [(2, 1), (4, 1), (5, 2), (8, 2), (16, 4), (100, 25)])
def test_a_hopeless_trial_gets_a_quarter_of_the_epochs(name: SchedulerName, max_epochs: int, grace: int) -> None:
    scheduler = build_scheduler(name, max_epochs)
    good_ones(scheduler, max_epochs)
    assert epochs_run(scheduler, "hopeless", 0.1, max_epochs) == grace


def test_without_a_scheduler_nothing_is_stopped() -> None:
    scheduler = build_scheduler("none", 8)
    good_ones(scheduler, 8)
    assert epochs_run(scheduler, "hopeless", 0.1, 8) == 0


def test_the_median_rule_waits_for_others_that_have_come_as_far() -> None:
    scheduler = build_scheduler("median", 8)
    good_ones(scheduler, 8, MIN_SAMPLES_REQUIRED - 1)
    assert epochs_run(scheduler, "hopeless", 0.1, 8) == 0
    assert epochs_run(scheduler, "hopeless too", 0.05, 8) == 2


def test_the_median_rule_compares_the_best_score_with_the_others_average_scores() -> None:
    scheduler: Any = build_scheduler("median", 4)
    for at in range(MIN_SAMPLES_REQUIRED):
        trial = SimpleNamespace(trial_id=f"late {at}", config={})
        scheduler.on_trial_add(None, trial)
        for epoch, score in enumerate((0.2, 0.4, 0.9, 0.9), start=1):  # on average 0.2, 0.3, 0.5, 0.6
            scheduler.on_trial_result(None, trial, {"epoch": epoch, "objective": score})
        scheduler.on_trial_complete(None, trial, {"epoch": 4, "objective": 0.9})
    assert epochs_run(scheduler, "below the average", 0.35, 4) == 3
    assert epochs_run(scheduler, "above the average", 0.61, 4) == 0
