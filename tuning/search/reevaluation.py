"""The finals: the best trials are trained again with other seeds before one wins by its mean.

The best of many trials is best by luck as well: the score that it was chosen by is too high for it, and more so the
more trials there were. What another seed gives was not chosen. Pure functions of the trials' results.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tuning.common.trial_record import TrialResult
from tuning.search.selection import default_of, leads, noise, ranked


class Finalist(NamedTuple):
    """A trial and the scores of all its trainings, its own first."""

    result: TrialResult
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean score: what the finals are decided by."""
        return statistics.fmean(self.scores)

    @property
    def spread(self) -> float:
        """The sample standard deviation of the scores; 0 of one."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else 0.0


def finalists(results: Sequence[TrialResult], count: int, val_pictures: int) -> list[Finalist]:
    """Return the best ``count`` trials that have ended, best first, with the scores of their finals.

    Who lies behind the best of all by more than the noise of so many validation pictures is none: it can't have been
    beaten by luck alone, and where it is quickly trained again and the best is not, it must not win for that.
    """
    best_first = ranked(results)
    top = best_first[0].score or 0.0 if best_first else 0.0
    ended = [
        result
        for result in best_first
        if result.status != "running" and not leads(top, result.score or 0.0, val_pictures)
    ]
    return [Finalist(result, _scores(result, results)) for result in ended[:count]]


def _scores(result: TrialResult, results: Sequence[TrialResult]) -> tuple[float, ...]:
    own = [other for other in results if other.of == result.trial_uid and other.status == "complete"]
    return tuple(score for score in (result.score, *(other.score for other in own)) if score is not None)


def next_final(
    results: Sequence[TrialResult],
    count: int,
    seeds: int,
    val_pictures: int,
    fits: Callable[[TrialResult], bool],
) -> tuple[TrialResult, int] | None:
    """Return which trial is to be trained again next, and with which seed; None where nothing is left to do.

    Seed by seed, so that what there is time for is spread over the finalists. ``fits`` says whether there is time to
    train a trial again.
    """
    for number in range(1, seeds + 1):
        for finalist in finalists(results, count, val_pictures):
            seed = finalist.result.config.seed + number
            begun = {other.config.seed for other in results if other.of == finalist.result.trial_uid}
            if seed not in begun and fits(finalist.result):
                return finalist.result, seed
    return None


def winner(
    allowed: Sequence[TrialResult], results: Sequence[TrialResult], count: int, val_pictures: int
) -> TrialResult | None:
    """Return which of the ``allowed`` trials, best first, wins.

    Of the finalists that were trained again, the one with the highest mean; the best as they are where fewer than two
    were: one mean can't be held against others' luck.
    """
    uids = {result.trial_uid for result in allowed}
    best = finalists(results, count, val_pictures)
    proved = [one for one in best if len(one.scores) > 1 and one.result.trial_uid in uids]
    if len(proved) < 2:
        return next(iter(allowed), None)
    return max(proved, key=lambda one: (one.mean, one.result.rank)).result


class Gain(NamedTuple):
    """What the search gained over the default on validation.

    Attributes:
        gain: of the winner's mean score over the default's.
        noise: standard error of that difference, from the spread over seeds and the number of validation pictures.
    """

    gain: float
    noise: float

    @property
    def is_real(self) -> bool:
        """Whether the gain is more than twice the noise: about a 95 % interval."""
        return self.gain > 2 * self.noise


def gain_over_default(best: TrialResult, results: Sequence[TrialResult], count: int, val_pictures: int) -> Gain | None:
    """Return what the best trial gained over the default; None where that was not trained to its end, or is the best.

    The two spreads are pooled over the finalists.
    """
    default = default_of(results)
    if default is None or default.status != "complete" or default.score is None or default.trial_uid == best.trial_uid:
        return None
    scores = _scores(best, results)
    spreads = [one.spread**2 for one in finalists(results, count, val_pictures) if len(one.scores) > 1]
    by_seed = statistics.fmean(spreads) if spreads else 0.0
    mean = statistics.fmean(scores)
    by_pictures = noise(mean, default.score, val_pictures) ** 2
    theirs = _scores(default, results)
    every = math.sqrt(by_seed / len(scores) + by_seed / len(theirs) + by_pictures)
    return Gain(mean - statistics.fmean(theirs), every)
