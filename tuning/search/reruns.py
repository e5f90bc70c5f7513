"""Re-running the best trials with other seeds before the winner is chosen by its mean loss.

The best score of many trials is biased upward by selection, the more so the more trials there are. The score with
another seed is not. Pure functions of the trials.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tuning.common.trial_record import TrialRecord
from tuning.search.selection import default_trial, is_significantly_better, ranked, standard_error


class RerunTrial(NamedTuple):
    """A trial with its own score and the scores of its re-runs, in this order."""

    trial: TrialRecord
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean score."""
        return statistics.fmean(self.scores)

    @property
    def std(self) -> float:
        """The sample standard deviation of the scores; 0 for a single score."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else 0.0


def top_trials(trials: Sequence[TrialRecord], top_k: int, num_val_images: int) -> list[RerunTrial]:
    """Return the best ``top_k`` finished trials, best first, with the scores of their re-runs.

    Linear probes are excluded, because another seed gives the same probe. Trials that are significantly worse than the
    best are excluded. Otherwise a cheap trial could win merely because the best one was too slow to re-run.
    """
    best_first = ranked(trials)
    best_score = best_first[0].score or 0.0 if best_first else 0.0
    comparable = [
        trial
        for trial in best_first
        if trial.status != "running"
        and not trial.config.is_probe
        and not is_significantly_better(best_score, trial.score or 0.0, num_val_images)
    ]
    return [RerunTrial(trial, _all_scores(trial, trials)) for trial in comparable[:top_k]]


def reruns_of(trial: TrialRecord, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the complete re-runs of a trial."""
    return [other for other in trials if other.rerun_of == trial.trial_uid and other.status == "complete"]


def _all_scores(trial: TrialRecord, trials: Sequence[TrialRecord]) -> tuple[float, ...]:
    scored = (trial, *reruns_of(trial, trials))
    return tuple(other.score for other in scored if other.score is not None)


class RerunPlan(NamedTuple):
    """Which trials are re-run, and how often.

    Attributes:
        top_k: number of trials.
        num_seeds: number of re-runs of each.
        num_folds: number of folds of the training and validation images; the re-runs with the first seed are validated
            on the first fold, those with the next seed on the next. 0: all on the validation split.
    """

    top_k: int
    num_seeds: int
    num_folds: int = 0


class NextRerun(NamedTuple):
    """A trial to re-run, with its seed and its fold."""

    trial: TrialRecord
    seed: int
    fold: int | None


def next_rerun(
    trials: Sequence[TrialRecord],
    plan: RerunPlan,
    num_val_images: int,
    has_time_for: Callable[[TrialRecord, int | None], bool],
) -> NextRerun | None:
    """Return the next re-run; None if there is none.

    Every top trial is re-run with one seed, on the same fold, before any is re-run with the next, so that limited time
    is shared equally and losses can be compared image by image. New folds for each seed make the choice depend less on
    one division of the images (Nagler et al., "Reshuffling Resampling Splits Can Improve Generalization of
    Hyperparameter Optimization", NeurIPS 2024). ``has_time_for`` returns whether the remaining
    time allows a re-run of a trial on a fold.
    """
    for offset in range(1, plan.num_seeds + 1):
        for rerun_trial in top_trials(trials, plan.top_k, num_val_images):
            trial = rerun_trial.trial
            seed = trial.config.seed + offset
            started_seeds = {other.config.seed for other in trials if other.rerun_of == trial.trial_uid}
            fold = (offset - 1) % plan.num_folds if plan.num_folds else None
            if seed not in started_seeds and has_time_for(trial, fold):
                return NextRerun(trial, seed, fold)
    return None


class Improvement(NamedTuple):
    """Improvement of the winner over the default on validation.

    Attributes:
        difference: the winner's mean score minus the default's.
        standard_error: of the difference, from the variance over seeds and the number of validation images.
    """

    difference: float
    standard_error: float

    @property
    def is_significant(self) -> bool:
        """Whether the difference exceeds two standard errors (about a 95 % confidence interval)."""
        return self.difference > 2 * self.standard_error


def improvement_over_default(
    best: TrialRecord, trials: Sequence[TrialRecord], top_k: int, num_val_images: int
) -> Improvement | None:
    """Return the improvement of the best trial; None if the default is the best or did not complete.

    The variance over seeds is pooled over the top trials.
    """
    default = default_trial(trials)
    if default is None or default.status != "complete" or default.score is None or default.trial_uid == best.trial_uid:
        return None
    best_scores, default_scores = _all_scores(best, trials), _all_scores(default, trials)
    variances = [top.std**2 for top in top_trials(trials, top_k, num_val_images) if len(top.scores) > 1]
    seed_variance = statistics.fmean(variances) if variances else 0.0
    best_mean = statistics.fmean(best_scores)
    image_variance = standard_error(best_mean, default.score, num_val_images) ** 2
    total_error = math.sqrt(seed_variance / len(best_scores) + seed_variance / len(default_scores) + image_variance)
    return Improvement(best_mean - statistics.fmean(default_scores), total_error)
