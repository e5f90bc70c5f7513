"""What happens to the trials that still run when a search ends."""

from __future__ import annotations

import pytest

from tests.tuning.factories import trial_record
from tuning.workflows.search_session import OUT_OF_TIME, outcome_at_end


@pytest.mark.parametrize("is_out_of_time", [True, False])
def test_a_trial_with_all_its_epochs_is_complete_whatever_ends_the_search(is_out_of_time: bool) -> None:
    trial = trial_record(status="running")
    trial = trial.model_copy(update={"history": trial.history[:1] * trial.config.fit.max_epochs})
    assert outcome_at_end(trial, is_out_of_time=is_out_of_time) == ("complete", "ran to its end")


def test_a_trial_with_epochs_left_is_out_of_time_or_stays_for_a_resume() -> None:
    trial = trial_record(status="running")
    assert outcome_at_end(trial, is_out_of_time=True) == ("out of time", OUT_OF_TIME)
    assert outcome_at_end(trial, is_out_of_time=False) is None
