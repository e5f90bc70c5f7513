"""Paired comparison of two classifiers on the same images: the gain, its interval and its p-value.

Both metrics are weighted sums over the images: the weight is 1/n for accuracy and 1/(images of the class * number of
classes) for balanced accuracy. A gain therefore depends only on the images on which exactly one classifier is right.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import NonNegativeInt

from data.frozen_model import FrozenModel
from tuning.common.option_types import Metric

Labels = npt.NDArray[np.int64]

NUM_RESAMPLES = 20_000  # permutations of the p-value, and bootstrap samples of the interval
SEED = 0  # fixed: the same predictions always give the same numbers


class PairedComparison(FrozenModel):
    """Metrics of a candidate and a champion on the same images.

    ``low`` and ``high`` are the gain's 95 % interval, from a paired bootstrap stratified by class; see
    ``permutation_p_value``. ``wins`` are images that only the candidate classifies correctly, ``losses`` the opposite.
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
        """The candidate's metric minus the champion's."""
        return self.candidate - self.champion


def compare_paired(metric: Metric, y_true: Labels, candidate: Labels, champion: Labels) -> PairedComparison:
    """Compare the predictions [n] of two classifiers with the true classes [n], n >= 1."""
    support = np.bincount(y_true)
    weights = class_weights(metric, support)
    candidate_correct, champion_correct = candidate == y_true, champion == y_true
    wins = np.bincount(y_true[candidate_correct & ~champion_correct], minlength=len(support))
    losses = np.bincount(y_true[champion_correct & ~candidate_correct], minlength=len(support))
    low, high = _interval(weights, support, wins, losses)
    return PairedComparison(
        candidate=float(weights @ np.bincount(y_true[candidate_correct], minlength=len(support))),
        champion=float(weights @ np.bincount(y_true[champion_correct], minlength=len(support))),
        low=low,
        high=high,
        p_value=permutation_p_value(weights, wins, losses),
        wins=int(wins.sum()),
        losses=int(losses.sum()),
        num_images=len(y_true),
    )


def class_weights(metric: Metric, support: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the weight of a correct image in the metric, by class [k]; 0 for a class without images."""
    if metric == "accuracy":
        return np.full(len(support), 1 / support.sum())
    return np.where(support > 0, 1 / (np.maximum(support, 1) * np.count_nonzero(support)), 0.0)


def permutation_p_value(
    weights: npt.NDArray[np.float64], wins: npt.NDArray[np.int64], losses: npt.NDArray[np.int64]
) -> float:
    """Return the one-sided p-value of wins and losses by class [k].

    Under the null hypothesis each image on which the classifiers differ is a win or a loss with probability 1/2. If all
    these images have the same weight, this is McNemar's exact test (McNemar 1947). Otherwise the wins are permuted
    ``NUM_RESAMPLES`` times by class (paired randomization test, Edgington 1969): ``scipy.stats.permutation_test`` flips
    each image, which for 10,000 images takes minutes instead of milliseconds. A bootstrap p-value would be too small:
    0.05 instead of 0.125 for three wins and no loss.
    """
    from scipy.stats import binomtest

    differing = wins + losses
    has_difference = differing > 0
    if not has_difference.any():
        return 1.0
    if np.ptp(weights[has_difference]) < 1e-12:
        return float(binomtest(int(wins.sum()), int(differing.sum()), alternative="greater").pvalue)
    rng = np.random.default_rng(SEED)
    permuted_wins = rng.binomial(differing[has_difference], 0.5, size=(NUM_RESAMPLES, int(has_difference.sum())))
    gains = (2 * permuted_wins - differing[has_difference]) @ weights[has_difference]
    observed = float(weights @ (wins - losses))
    return float((1 + np.count_nonzero(gains >= observed - 1e-12)) / (1 + NUM_RESAMPLES))


def _interval(
    weights: npt.NDArray[np.float64],
    support: npt.NDArray[np.int64],
    wins: npt.NDArray[np.int64],
    losses: npt.NDArray[np.int64],
) -> tuple[float, float]:
    """Return the 95 % interval of the gain; images are resampled within each class, both predictions together."""
    rng = np.random.default_rng(SEED)
    gains = np.zeros(NUM_RESAMPLES)
    for index in np.flatnonzero(wins + losses):
        shares = np.array([wins[index], losses[index], support[index] - wins[index] - losses[index]]) / support[index]
        samples = rng.multinomial(support[index], shares, size=NUM_RESAMPLES)
        gains += weights[index] * (samples[:, 0] - samples[:, 1])
    low, high = np.percentile(gains, (2.5, 97.5))
    return float(low), float(high)
