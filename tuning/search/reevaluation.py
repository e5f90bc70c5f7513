"""The finals: the best trials are trained again with other seeds before one wins by its mean.

The best of many trials is best by luck as well: the score that it was chosen by is too high for it, and more so the
more trials there were. What another seed gives was not chosen. Pure functions of the trials' results.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tuning.common.trial_record import TrialRecord
from tuning.search.selection import default_trial, is_significantly_better, ranked, standard_error


class RerunTrial(NamedTuple):
    """A trial and the scores of all its trainings, its own first."""

    trial: TrialRecord
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean score: what the finals are decided by."""
        return statistics.fmean(self.scores)

    @property
    def std(self) -> float:
        """The sample standard deviation of the scores; 0 of one."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else 0.0


def top_trials(trials: Sequence[TrialRecord], top_k: int, num_val_images: int) -> list[RerunTrial]:
    """Return the best ``count`` trials that have ended, best first, with the scores of their finals.

    Who lies behind the best of all by more than the noise of so many validation pictures is none: it can't have been
    beaten by luck alone, and where it is quickly trained again and the best is not, it must not win for that.
    """
    best_first = ranked(trials)
    top = best_first[0].score or 0.0 if best_first else 0.0
    ended = [
        result
        for result in best_first
        if result.status != "running" and not is_significantly_better(top, result.score or 0.0, num_val_images)
    ]
    return [RerunTrial(result, _scores(result, trials)) for result in ended[:top_k]]


def _scores(result: TrialRecord, results: Sequence[TrialRecord]) -> tuple[float, ...]:
    own = [other for other in results if other.rerun_of == result.trial_uid and other.status == "complete"]
    return tuple(score for score in (result.score, *(other.score for other in own)) if score is not None)


def next_rerun(
    trials: Sequence[TrialRecord],
    top_k: int,
    num_seeds: int,
    num_val_images: int,
    has_time_for: Callable[[TrialRecord], bool],
) -> tuple[TrialRecord, int] | None:
    """Return which trial is to be trained again next, and with which seed; None where nothing is left to do.

    Seed by seed, so that what there is time for is spread over the finalists. ``fits`` says whether there is time to
    train a trial again.
    """
    for number in range(1, num_seeds + 1):
        for finalist in top_trials(trials, top_k, num_val_images):
            seed = finalist.trial.config.seed + number
            begun = {other.config.seed for other in trials if other.rerun_of == finalist.trial.trial_uid}
            if seed not in begun and has_time_for(finalist.trial):
                return finalist.trial, seed
    return None


def select_winner(
    allowed: Sequence[TrialRecord], trials: Sequence[TrialRecord], top_k: int, num_val_images: int
) -> TrialRecord | None:
    """Return which of the ``allowed`` trials, best first, wins.

    Of the finalists that were trained again, the one with the highest mean; the best as they are where fewer than two
    were: one mean can't be held against others' luck.
    """
    uids = {result.trial_uid for result in allowed}
    best = top_trials(trials, top_k, num_val_images)
    proved = [one for one in best if len(one.scores) > 1 and one.trial.trial_uid in uids]
    if len(proved) < 2:
        return next(iter(allowed), None)
    return max(proved, key=lambda one: (one.mean, one.trial.sort_key)).trial


class Improvement(NamedTuple):
    """What the search gained over the default on validation.

    Attributes:
        gain: of the winner's mean score over the default's.
        noise: standard error of that difference, from the spread over seeds and the number of validation pictures.
    """

    difference: float
    standard_error: float

    @property
    def is_significant(self) -> bool:
        """Whether the gain is more than twice the noise: about a 95 % interval."""
        return self.difference > 2 * self.standard_error


def improvement_over_default(
    best: TrialRecord, trials: Sequence[TrialRecord], top_k: int, num_val_images: int
) -> Improvement | None:
    """Return what the best trial gained over the default; None where that was not trained to its end, or is the best.

    The two spreads are pooled over the finalists.
    """
    default = default_trial(trials)
    if default is None or default.status != "complete" or default.score is None or default.trial_uid == best.trial_uid:
        return None
    scores = _scores(best, trials)
    spreads = [one.std**2 for one in top_trials(trials, top_k, num_val_images) if len(one.scores) > 1]
    by_seed = statistics.fmean(spreads) if spreads else 0.0
    mean = statistics.fmean(scores)
    by_pictures = standard_error(mean, default.score, num_val_images) ** 2
    theirs = _scores(default, trials)
    every = math.sqrt(by_seed / len(scores) + by_seed / len(theirs) + by_pictures)
    return Improvement(mean - statistics.fmean(theirs), every)
