"""Estimating the trials that a time budget allows, and the duration of a number of trials."""

from __future__ import annotations

import pytest

from models.profiling.step_time import BATCH_SIZE
from tests.tuning.factories import recipe
from tuning.search.time_budget import estimate_budget
from tuning.ui.summary import budget_line

STEP_S = {0.0: 0.4, 0.5: 0.2, 1.0: 0.0}


def test_a_time_budget_allows_trials_at_the_mean_freeze_fraction() -> None:
    timed = recipe(minutes="11", max_epochs="10")
    estimate = estimate_budget(timed, STEP_S, num_train=10 * BATCH_SIZE, num_val=3 * BATCH_SIZE, max_concurrent=2)
    assert estimate.trial_s == pytest.approx({0.0: 44.0, 0.5: 22.0, 1.0: 0.0})
    assert estimate.trials == int((660 - 75) * 2 / 22)
    assert estimate.minutes is None
    assert budget_line(timed, estimate, "net", 64, 2) == (
        "a trial of 10 epochs of net at 64 px takes about 22 s with half of its blocks frozen, 44 s with none "
        "frozen: about 53 such trials, 2 in parallel, in 11 minutes"
    )


def test_a_number_of_trials_takes_minutes() -> None:
    counted = recipe(trials="60", max_epochs="10")
    estimate = estimate_budget(counted, STEP_S, num_train=10 * BATCH_SIZE, num_val=3 * BATCH_SIZE, max_concurrent=2)
    assert (estimate.trials, estimate.minutes) == (None, pytest.approx(11.0))
    assert budget_line(counted, estimate, "net", 64, 2).endswith("60 such trials, 2 in parallel, take about 11 minutes")
