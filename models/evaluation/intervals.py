"""Confidence intervals of metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from models.evaluation.metrics import (
    Counts,
    Floats,
    Labels,
    MetricName,
    Probabilities,
    balanced_accuracy,
    confusion_matrix,
    macro_f1,
)

NUM_RESAMPLES = 500
MAX_CELLS = 4_000_000  # of the confusion matrices in memory at the same time
BOOTSTRAP_SEED = 0  # fixed, so that the same predictions always give the same interval
# Weight of the overall error rate in the error rate of a class, as a number of images: it matters in a class of one
# image, and hardly in one of 100. ``python -m benchmarks.intervals`` measures the coverage.
PRIOR_IMAGES = 4.0
NORMAL_975 = 1.959964  # the 97.5 % quantile of the normal distribution


def confidence_interval(metric: MetricName, probabilities: Probabilities, labels: Labels) -> tuple[float, float]:
    """Return the 95 % confidence interval of a metric for probabilities [n, k] and labels [n].

    Accuracies use the Wilson interval. Balanced accuracy and macro-F1 use it too, with the number of images that gives
    a proportion the variance of the metric. The variance comes from a stratified bootstrap of smoothed error rates:
    without smoothing it would be 0 if all images are classified correctly.
    """
    num_classes = probabilities.shape[1]
    if metric == "accuracy":
        return wilson_interval(int((probabilities.argmax(axis=1) == labels).sum()), len(labels))
    confusion = confusion_matrix(probabilities.argmax(axis=1), labels, num_classes)
    return mean_interval(confusion, metric)


def mean_interval(confusion: Counts, metric: MetricName) -> tuple[float, float]:
    """Return the 95 % confidence interval of balanced accuracy or macro-F1 for a confusion matrix [k, k]."""
    score = balanced_accuracy if metric == "balanced_accuracy" else macro_f1
    values = np.concatenate([score(samples) for samples in _resample(confusion)])
    mean, variance = float(values.mean()), float(values.var())
    num_images = mean * (1 - mean) / variance if variance else float(confusion.sum())
    return _wilson(float(score(confusion)), num_images)


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of the proportion ``correct / total``."""
    return _wilson(correct / total, total)


def _wilson(share: float, total: float) -> tuple[float, float]:
    """Return Wilson's 95 % interval; written out, because SciPy's takes whole numbers only."""
    scale = 1 + NORMAL_975**2 / total
    center = (share + NORMAL_975**2 / (2 * total)) / scale
    half = NORMAL_975 / scale * math.sqrt(share * (1 - share) / total + (NORMAL_975 / (2 * total)) ** 2)
    return max(0.0, min(share, center - half)), min(1.0, max(share, center + half))  # exactly 1 for a share of 1


def _resample(confusion: Counts) -> Iterator[Counts]:
    """Yield ``NUM_RESAMPLES`` bootstrap samples [m, k, k] of a confusion matrix [k, k], in chunks.

    Drawing the images of a class with replacement is the same as drawing its row from a multinomial distribution.
    """
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    support = confusion.sum(axis=1)
    rates = _smoothed_rates(confusion, support)
    size = max(1, MAX_CELLS // confusion.size)
    for start in range(0, NUM_RESAMPLES, size):
        samples = np.zeros((min(size, NUM_RESAMPLES - start), *confusion.shape), dtype=np.int64)
        for row in np.flatnonzero(support):
            samples[:, row] = rng.multinomial(support[row], rates[row], size=len(samples))
        yield samples


def _smoothed_rates(confusion: Counts, support: Counts) -> Floats:
    """Return [k, k]: each class's shares of predicted classes, shrunk towards the overall error rate."""
    num_classes, total = len(confusion), int(support.sum())
    error = (total - np.trace(confusion) + 0.5) / (total + 1)  # Jeffreys' estimate, never 0
    prior = np.full(confusion.shape, error / max(1, num_classes - 1))
    np.fill_diagonal(prior, 1 - error)
    return np.asarray((confusion + PRIOR_IMAGES * prior) / (support + PRIOR_IMAGES)[:, None])
