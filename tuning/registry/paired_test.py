"""Two classifiers on the same pictures: how much better one is, and whether that can be luck.

Both metrics are sums over the pictures, each with a weight of its class: 1/n for accuracy, 1/(pictures of the class *
classes) for balanced accuracy. So a gain depends only on how often, in each class, one of the two is right alone.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from pydantic import NonNegativeInt

from data.frozen_model import FrozenModel
from tuning.common.promotion_types import Metric

Labels = npt.NDArray[np.int64]

NUM_PERMUTATIONS = 20_000
SEED = 0  # fixed, so that the same predictions always give the same numbers


class PairedComparison(FrozenModel):
    """A candidate against a champion on the same pictures.

    Attributes:
        candidate: its metric.
        champion: likewise.
        low: lower end of the gain's 95 % interval, by a paired bootstrap that keeps each class's number of pictures.
        high: upper end.
        p_value: chance of such a gain, or a larger one, if the two were equally good; see ``permutation_p_value``.
        wins: pictures that only the candidate gets right.
        losses: pictures that only the champion gets right.
        pictures: on how many.
    """

    candidate: float
    champion: float
    low: float
    high: float
    p_value: float
    wins: NonNegativeInt
    losses: NonNegativeInt
    num_images: NonNegativeInt

    @property
    def gain(self) -> float:
        """How much higher the candidate's metric is."""
        return self.candidate - self.champion


def compare_paired(metric: Metric, y_true: Labels, candidate: Labels, champion: Labels) -> PairedComparison:
    """Compare predictions [n] of two classifiers for pictures of the classes ``truth`` [n]; n must be 1 or more."""
    support = np.bincount(y_true)
    weights = class_weights(metric, support)
    right, rival = candidate == y_true, champion == y_true
    wins = np.bincount(y_true[right & ~rival], minlength=len(support))
    losses = np.bincount(y_true[rival & ~right], minlength=len(support))
    low, high = _interval(weights, support, wins, losses)
    return PairedComparison(
        candidate=float(weights @ np.bincount(y_true[right], minlength=len(support))),
        champion=float(weights @ np.bincount(y_true[rival], minlength=len(support))),
        low=low,
        high=high,
        p_value=permutation_p_value(weights, wins, losses),
        wins=int(wins.sum()),
        losses=int(losses.sum()),
        num_images=len(y_true),
    )


def class_weights(metric: Metric, support: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return what one picture of each class adds to the metric when it is right; 0 for a class without pictures."""
    if metric == "accuracy":
        return np.full(len(support), 1 / support.sum())
    return np.where(support > 0, 1 / (np.maximum(support, 1) * np.count_nonzero(support)), 0.0)


def permutation_p_value(
    weights: npt.NDArray[np.float64], wins: npt.NDArray[np.int64], losses: npt.NDArray[np.int64]
) -> float:
    """Return the one-sided p-value of wins and losses [k] by class.

    If the two classifiers were equally good, each picture on which they differ could as well have been the other's
    win. Where all these pictures weigh the same, as for accuracy, that is McNemar's exact test (McNemar 1947); else
    the wins are dealt anew ``NUM_PERMUTATIONS`` times (a paired randomization test, Edgington 1969). The share of a bootstrap's
    gains at or below zero is not used for this: with three wins and no loss it gives 0.05, the exact test 0.125.
    """
    differing = wins + losses
    concerned = differing > 0
    if not concerned.any():
        return 1.0
    if np.ptp(weights[concerned]) < 1e-12:
        return _binomial_tail(int(wins.sum()), int(differing.sum()))
    rng = np.random.default_rng(SEED)
    dealt = rng.binomial(differing[concerned], 0.5, size=(NUM_PERMUTATIONS, int(concerned.sum())))
    gains = (2 * dealt - differing[concerned]) @ weights[concerned]
    found = float(weights @ (wins - losses))
    return float((1 + np.count_nonzero(gains >= found - 1e-12)) / (1 + NUM_PERMUTATIONS))


def _binomial_tail(least: int, tosses: int) -> float:
    """Return the chance of ``least`` or more heads in ``tosses`` of a fair coin."""
    log_of = math.lgamma
    logs = [
        log_of(tosses + 1) - log_of(heads + 1) - log_of(tosses - heads + 1) - tosses * math.log(2)
        for heads in range(least, tosses + 1)
    ]
    return min(1.0, math.fsum(math.exp(value) for value in logs))


def _interval(
    weights: npt.NDArray[np.float64],
    support: npt.NDArray[np.int64],
    wins: npt.NDArray[np.int64],
    losses: npt.NDArray[np.int64],
) -> tuple[float, float]:
    """Return the 95 % interval of the gain: pictures of a class are drawn with replacement, each with its pair."""
    rng = np.random.default_rng(SEED)
    gains = np.zeros(NUM_PERMUTATIONS)
    for index in np.flatnonzero(wins + losses):
        shares = np.array([wins[index], losses[index], support[index] - wins[index] - losses[index]]) / support[index]
        drawn = rng.multinomial(support[index], shares, size=NUM_PERMUTATIONS)
        gains += weights[index] * (drawn[:, 0] - drawn[:, 1])
    low, high = np.percentile(gains, (2.5, 97.5))
    return float(low), float(high)
