"""What happens to the trials that still run when a search ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tuning.factories import recipe, trial_record
from tuning.recipe.schema import ResumeRequest
from tuning.search.time_budget import Elapsed
from tuning.workflows.search_session import OUT_OF_TIME, outcome_at_end, with_requested_budget


@pytest.mark.parametrize("is_out_of_time", [True, False])
def test_a_trial_with_all_its_epochs_is_complete_whatever_ends_the_search(is_out_of_time: bool) -> None:
    trial = trial_record(status="running")
    trial = trial.model_copy(update={"history": trial.history[:1] * trial.config.fit.max_epochs})
    assert outcome_at_end(trial, is_out_of_time=is_out_of_time) == ("complete", "ran to its end")


def test_a_trial_with_epochs_left_is_out_of_time_or_stays_for_a_resume() -> None:
    trial = trial_record(status="running")
    assert outcome_at_end(trial, is_out_of_time=True) == ("out of time", OUT_OF_TIME)
    assert outcome_at_end(trial, is_out_of_time=False) is None


def test_a_new_budget_starts_at_zero_and_keeps_the_time_of_earlier_sessions(tmp_path: Path) -> None:
    file = tmp_path / "elapsed_s"
    Elapsed(68.0, 112.0).save(file)
    assert with_requested_budget(recipe(minutes=2), ResumeRequest(run="r"), [], file).budget_s == 120
    assert Elapsed.load(file) == Elapsed(68.0, 112.0), "the rest of the budget"
    resumed = with_requested_budget(recipe(minutes=2), ResumeRequest(run="r", minutes=1), [], file)
    assert (resumed.budget_s, Elapsed.load(file)) == (60, Elapsed(0.0, 180.0))
