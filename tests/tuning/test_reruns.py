"""Re-runs of the best trials: which are re-run, and whether the improvement is significant."""

from __future__ import annotations

import pytest

from models.trial_config import FitConfig
from tests.tuning.factories import trial_record
from tuning.common.trial_record import TrialRecord
from tuning.search.reruns import RerunPlan, improvement_over_default, next_rerun, top_trials

NUM_IMAGES = 400
FEW_IMAGES = 10  # no two scores below differ significantly


def rerun(trial: TrialRecord, seed: int, score: float | None = 0.5, status: str = "complete") -> TrialRecord:
    record = trial_record(100 + 10 * trial.number + seed, score)
    config = trial.config.model_copy(update={"seed": trial.config.seed + seed})
    changes = {"origin": "rerun", "rerun_of": trial.trial_uid, "config": config, "status": status}
    return record.model_copy(update=changes)


def always_has_time(_: TrialRecord, fold: int | None) -> bool:
    del fold
    return True


A, B, C, D = (trial_record(number, score) for number, score in enumerate((0.9, 0.8, 0.7, 0.6)))


def test_top_trials_are_the_best_that_ended_and_did_not_fail() -> None:
    running = trial_record(4, 0.99, "running")
    failed = trial_record(5, 0.98, "failed")
    assert [top.trial for top in top_trials([D, C, running, B, failed, A], 2, FEW_IMAGES)] == [A, B]


def test_significantly_worse_trials_are_excluded() -> None:
    # With 400 images, two standard errors of the difference are 0.047 for 0.9 and 0.84, and 0.046 for 0.9 and 0.86.
    near, far, farther = (trial_record(number, score) for number, score in ((1, 0.86), (2, 0.84), (3, 0.83)))
    trials = [A, near, far, farther, *(rerun(trial, 1, 0.84) for trial in (far, farther))]
    assert [top.trial for top in top_trials(trials, 4, NUM_IMAGES)] == [A, near]
    running = trial_record(4, 0.99, "running")
    assert top_trials([*trials, running], 4, NUM_IMAGES) == []


def test_all_top_trials_are_rerun_with_one_seed_before_the_next_seed() -> None:
    trials, order = [A, B, C], []
    while (step := next_rerun(trials, RerunPlan(2, 2), FEW_IMAGES, always_has_time)) is not None:
        offset = step.seed - step.trial.config.seed
        order.append((step.trial.number, offset, step.fold))
        trials.append(rerun(step.trial, offset, 0.1))
    assert order == [(0, 1, None), (1, 1, None), (0, 2, None), (1, 2, None)]


def test_reruns_with_the_same_seed_are_validated_on_the_same_fold() -> None:
    trials, folds = [A, B], []
    while (step := next_rerun(trials, RerunPlan(2, 3, num_folds=2), FEW_IMAGES, always_has_time)) is not None:
        folds.append((step.trial.number, step.fold))
        trials.append(rerun(step.trial, step.seed - step.trial.config.seed, 0.1))
    assert folds == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 0), (1, 0)]


def test_a_trial_without_enough_remaining_time_is_not_rerun() -> None:
    assert next_rerun([A, B], RerunPlan(2, 1), FEW_IMAGES, lambda trial, _: trial is B) == (B, B.config.seed + 1, None)
    assert next_rerun([A, B], RerunPlan(2, 1), FEW_IMAGES, lambda *_: False) is None


def test_a_running_or_failed_rerun_is_not_started_again() -> None:
    started = [rerun(A, 1, None, "running"), rerun(B, 1, None, "failed")]
    assert next_rerun([A, B, *started], RerunPlan(2, 1), FEW_IMAGES, always_has_time) is None


def test_a_linear_probe_is_not_rerun_because_another_seed_changes_nothing() -> None:
    fit = FitConfig(optimizer="lbfgs")
    network = B.config.network.model_copy(update={"freeze_fraction": 1.0})
    config = B.config.model_copy(update={"fit": fit, "network": network})
    probe = B.model_copy(update={"config": config})
    assert next_rerun([probe, C], RerunPlan(2, 1), FEW_IMAGES, always_has_time) == (C, C.config.seed + 1, None)


def test_a_failed_rerun_is_not_included_in_the_mean() -> None:
    (top,) = top_trials([A, rerun(A, 1, 0.1, "failed"), rerun(A, 2, 0.7)], 1, FEW_IMAGES)
    assert top.scores == (0.9, 0.7)
    assert top.mean == pytest.approx(0.8)
    assert top.std == pytest.approx(0.1 * 2**0.5)


def test_an_improvement_is_significant_only_if_it_exceeds_the_variance_over_seeds_and_images() -> None:
    default, best = trial_record(0, 0.7), trial_record(1, 0.9)
    similar = [rerun(best, seed, 0.9) for seed in (1, 2)]
    improvement = improvement_over_default(best, [default, best, *similar], 1, NUM_IMAGES)
    assert improvement is not None
    assert improvement.difference == pytest.approx(0.2)
    assert improvement.standard_error == pytest.approx(((0.9 * 0.1 + 0.7 * 0.3) / NUM_IMAGES) ** 0.5)
    assert improvement.is_significant
    different = [rerun(best, 1, 0.5), rerun(best, 2, 0.95)]
    uncertain = improvement_over_default(best, [default, best, *different], 1, NUM_IMAGES)
    assert uncertain is not None
    assert not uncertain.is_significant


def test_there_is_no_improvement_over_a_default_that_did_not_complete() -> None:
    assert improvement_over_default(B, [trial_record(0, 0.3, "pruned"), B], 3, NUM_IMAGES) is None


def test_the_default_has_no_improvement_over_itself() -> None:
    default = trial_record(0, 0.9)
    assert improvement_over_default(default, [default], 3, NUM_IMAGES) is None
    assert improvement_over_default(B, [trial_record(0, None, "failed"), B], 3, NUM_IMAGES) is None
