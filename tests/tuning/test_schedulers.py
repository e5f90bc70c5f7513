"""What stops a hopeless trial early, and how many epochs it gets before: the schedulers are driven without Ray."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from tuning.search.schedulers import PROTECTED, UNJUDGED, build_scheduler


def epochs_run(scheduler: Any, name: str, score: float, epochs: int, **config: object) -> int:
    """Report that many epochs and a last word, all with ``score``; return the epoch in which it was stopped, or 0."""
    trial = SimpleNamespace(trial_id=name, config=config)
    scheduler.on_trial_add(None, trial)
    for epoch in (*range(1, epochs + 1), epochs):
        result = {"epoch": epoch, "objective": score}
        if scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP:
            return epoch
    return 0


@pytest.mark.parametrize(("name", "max_epochs"), [("none", 8), ("asha", 1)])
def test_without_asha_or_with_one_epoch_nothing_is_stopped(name: str, max_epochs: int) -> None:
    scheduler = build_scheduler(name, max_epochs)
    assert epochs_run(scheduler, "good", 0.9, max_epochs) == 0
    assert epochs_run(scheduler, "hopeless", 0.1, max_epochs) == 0


@pytest.mark.parametrize(("max_epochs", "grace"), [(2, 1), (4, 1), (5, 2), (8, 2), (16, 4), (100, 25)])
def test_asha_gives_a_hopeless_trial_a_quarter_of_the_epochs(max_epochs: int, grace: int) -> None:
    scheduler = build_scheduler("asha", max_epochs)
    assert epochs_run(scheduler, "good", 0.9, max_epochs) == 0
    assert epochs_run(scheduler, "hopeless", 0.1, max_epochs) == grace


@pytest.mark.parametrize("max_epochs", [2, 8, 9])
def test_asha_never_cuts_off_a_good_trials_last_word(max_epochs: int) -> None:
    scheduler = build_scheduler("asha", max_epochs)
    scores = (0.5, 0.6, 0.7)
    assert [epochs_run(scheduler, str(score), score, max_epochs) for score in scores] == [0, 0, 0]


def test_asha_lets_a_trial_fail_before_its_first_epoch() -> None:
    scheduler: Any = build_scheduler("asha", 8)
    trial = SimpleNamespace(trial_id="failed", config={})
    scheduler.on_trial_add(None, trial)
    failed = {"epoch": 0, "objective": float("-inf")}
    assert scheduler.on_trial_result(None, trial, failed) == TrialScheduler.CONTINUE


def test_asha_never_stops_a_protected_trial_and_judges_the_others_by_it() -> None:
    scheduler = build_scheduler("asha", 8)
    assert epochs_run(scheduler, "good", 0.9, 8, **{PROTECTED: False}) == 0
    assert epochs_run(scheduler, "default", 0.5, 8, **{PROTECTED: True}) == 0
    assert epochs_run(scheduler, "hopeless", 0.1, 8, **{PROTECTED: False}) == 2


def test_asha_neither_stops_a_probe_nor_holds_it_against_others() -> None:
    scheduler: Any = build_scheduler("asha", 8)
    assert epochs_run(scheduler, "probe", 0.95, 8, **{UNJUDGED: True}) == 0
    assert epochs_run(scheduler, "good", 0.9, 8, **{UNJUDGED: False}) == 0
    assert epochs_run(scheduler, "poor probe", 0.1, 8, **{UNJUDGED: True}) == 0
    probe = SimpleNamespace(trial_id="probe", config={UNJUDGED: True})
    scheduler.on_trial_complete(None, probe, {"epoch": 8, "objective": 0.95})
    assert epochs_run(scheduler, "second", 0.91, 8, **{UNJUDGED: False}) == 0
