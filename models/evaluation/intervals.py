"""Confidence intervals of metrics."""

from __future__ import annotations

import math

import numpy as np

from models.evaluation.metrics import (
    Counts,
    Labels,
    Metric,
    Probabilities,
    _top_accuracy,
    balanced_accuracy,
    confusion_matrix,
    macro_f1,
)

Z_95 = 1.959963984540054  # of the normal distribution: 95 % lie within this many standard deviations
NUM_RESAMPLES = 2000
BOOTSTRAP_SEED = 0  # fixed, so that the same predictions always give the same interval


def confidence_interval(metric: Metric, probabilities: Probabilities, labels: Labels) -> tuple[float, float]:
    """Return the 95 % confidence interval of a metric on labels [n].

    Accuracies get Wilson's interval. Balanced accuracy and macro-F1 get the percentiles of a bootstrap that keeps
    every class's number of pictures, with a fixed seed.
    """
    count = probabilities.shape[1]
    if metric == "accuracy":
        return wilson_interval(int((probabilities.argmax(axis=1) == labels).sum()), len(labels))
    if metric == "top5_accuracy":
        return wilson_interval(round(_top_accuracy(probabilities, labels) * len(labels)), len(labels))
    confusion = confusion_matrix(probabilities.argmax(axis=1), labels, count)
    resampled = _resampled(confusion)
    values = balanced_accuracy(resampled) if metric == "balanced_accuracy" else macro_f1(resampled)
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval for ``right`` of ``total``."""
    share, z2 = correct / total, Z_95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return max(0.0, centre - half), min(1.0, centre + half)


def _resampled(confusion: Counts) -> Counts:
    """Return [RESAMPLES, k, k]: drawing pictures of a class with replacement draws its row from a multinomial."""
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    support = confusion.sum(axis=1)
    drawn = np.zeros((NUM_RESAMPLES, *confusion.shape), dtype=np.int64)
    for row in np.flatnonzero(support):
        drawn[:, row] = rng.multinomial(support[row], confusion[row] / support[row], size=NUM_RESAMPLES)
    return drawn
