"""Confidence intervals of metrics."""

from __future__ import annotations

import numpy as np

from models.evaluation.metrics import (
    Counts,
    Labels,
    MetricName,
    Probabilities,
    balanced_accuracy,
    confusion_matrix,
    macro_f1,
)

NUM_RESAMPLES = 2000
BOOTSTRAP_SEED = 0  # fixed, so that the same predictions always give the same interval


def confidence_interval(metric: MetricName, probabilities: Probabilities, labels: Labels) -> tuple[float, float]:
    """Return the 95 % confidence interval of a metric for probabilities [n, k] and labels [n].

    Accuracies use the Wilson interval. Balanced accuracy and macro-F1 use the percentiles of a stratified bootstrap
    (the number of images per class is kept) with a fixed seed.
    """
    num_classes = probabilities.shape[1]
    if metric == "accuracy":
        return wilson_interval(int((probabilities.argmax(axis=1) == labels).sum()), len(labels))
    confusion = confusion_matrix(probabilities.argmax(axis=1), labels, num_classes)
    resampled = _resample(confusion)
    values = balanced_accuracy(resampled) if metric == "balanced_accuracy" else macro_f1(resampled)
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of the proportion ``correct / total``."""
    from scipy.stats import binomtest

    interval = binomtest(correct, total).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def _resample(confusion: Counts) -> Counts:
    """Return bootstrap samples [NUM_RESAMPLES, k, k] of a confusion matrix [k, k].

    Drawing the images of a class with replacement is the same as drawing its row from a multinomial distribution.
    """
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    support = confusion.sum(axis=1)
    samples = np.zeros((NUM_RESAMPLES, *confusion.shape), dtype=np.int64)
    for row in np.flatnonzero(support):
        samples[:, row] = rng.multinomial(support[row], confusion[row] / support[row], size=NUM_RESAMPLES)
    return samples
