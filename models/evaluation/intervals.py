"""Confidence intervals of metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy import special

from models.evaluation.metrics import (
    Counts,
    Floats,
    Labels,
    MetricName,
    Probabilities,
    confusion_matrix,
    macro_f1,
)

MIN_RESAMPLES, MAX_RESAMPLES = 50, 500
MAX_SAMPLED_CELLS = 25_000_000  # of all resamples: with 1,000 classes, 500 resamples would take 20 s
MAX_CELLS = 4_000_000  # of the confusion matrices in memory at the same time
BOOTSTRAP_SEED = 0  # fixed, so that the same predictions always give the same interval
# Weight of the overall error rate in the error rate of a class, as a number of images: it matters in a class of one
# image, and hardly in one of 100. ``python -m benchmarks.intervals`` measures the coverage.
PRIOR_IMAGES = 4.0
PRIOR_STRENGTHS = (2.0, 8.0, 32.0, 128.0, 1e4)  # as a number of images: recalls that differ a lot to equal recalls
MIN_GRID, MAX_GRID = 60, 400  # steps of the mean of the prior
NUM_DRAWS = 4000  # of the posterior
NORMAL_975 = 1.959964  # the 97.5 % quantile of the normal distribution


def confidence_interval(metric: MetricName, probabilities: Probabilities, labels: Labels) -> tuple[float, float]:
    """Return the 95 % confidence interval of a metric for probabilities [n, k] and labels [n]."""
    predicted = probabilities.argmax(axis=1)
    return confusion_interval(metric, confusion_matrix(predicted, labels, probabilities.shape[1]))


def confusion_interval(metric: MetricName, confusion: Counts) -> tuple[float, float]:
    """Return the 95 % confidence interval of a metric for a confusion matrix [k, k].

    Accuracy uses the Wilson interval, balanced accuracy the posterior of ``mean_recall_interval``. Macro-F1 uses the
    Wilson interval with the number of images that gives a proportion the variance of the metric in a stratified
    bootstrap of smoothed error rates: without smoothing it would be 0 if all images are classified correctly. Macro-F1
    is biased if classes have one or two images, so the interval covers that of the corrected value, too.
    """
    correct, support = np.diagonal(confusion), confusion.sum(axis=1)
    if metric == "accuracy":
        return wilson_interval(int(correct.sum()), int(support.sum()))
    if metric == "balanced_accuracy":
        return mean_recall_interval(correct[support > 0], support[support > 0])
    values = np.concatenate([macro_f1(samples) for samples in _resample(confusion)])
    mean, variance = float(values.mean()), float(values.var())
    num_images = mean * (1 - mean) / variance if variance else float(confusion.sum())
    rates = _smoothed_rates(confusion, confusion.sum(axis=1))
    bias = mean - float(macro_f1(rates * confusion.sum(axis=1, keepdims=True)))
    value = float(macro_f1(confusion))
    bounds = [_wilson(min(1.0, max(0.0, share)), num_images) for share in (value, value - bias)]
    return min(low for low, _ in bounds), max(high for _, high in bounds)


def mean_recall_interval(correct: Counts, support: Counts) -> tuple[float, float]:
    """Return the 95 % interval of the mean recall of classes with ``correct`` of ``support`` images each, both [k].

    The recalls have a beta prior whose mean and strength are unknown (Jeffreys' prior for the mean). With the fixed
    prior Beta(1/2, 1/2) for each class, classes of one image would be drawn to 1/2, and 50 of them would exclude the
    truth. For each mean and strength on a grid, the mean recall has nearly a beta distribution.
    """
    pairs, classes = np.unique(np.stack([correct, support]), axis=1, return_counts=True)  # classes with equal counts
    means, strengths = _prior_grid(correct, support)
    a, b = means * strengths, (1 - means) * strengths
    hits, misses = a[:, None] + pairs[0], b[:, None] + pairs[1] - pairs[0]
    log_likelihood = (special.betaln(hits, misses) - special.betaln(a, b)[:, None]) @ classes
    weights = np.exp(log_likelihood - log_likelihood.max())
    recall = hits / (hits + misses)
    mean = recall @ classes / len(support)
    variance = (recall * (1 - recall) / (hits + misses + 1)) @ classes / len(support) ** 2
    total = mean * (1 - mean) / variance - 1
    at = np.searchsorted(np.cumsum(weights / weights.sum()), (np.arange(NUM_DRAWS) + 0.5) / NUM_DRAWS)
    at = np.minimum(at, len(weights) - 1)  # the cumulative sum may end just below 1
    draws = np.random.default_rng(BOOTSTRAP_SEED).beta((mean * total)[at], ((1 - mean) * total)[at])
    low, high = np.quantile(draws, [0.025, 0.975])
    share = float(np.mean(correct / support))
    return (0.0 if share == 0 else min(float(low), share)), (1.0 if share == 1 else max(float(high), share))


def _prior_grid(correct: Counts, support: Counts) -> tuple[Floats, Floats]:
    """Return the grid of the prior's mean and strength, both flat.

    The mean has equal steps of its arcsine, in which Jeffreys' prior is flat and a mean of k recalls has at most the
    standard deviation 1 / (2 sqrt(k)). More images per class need smaller steps.
    """
    center = math.asin(math.sqrt((correct.sum() + 0.5) / (support.sum() + 1)))
    reach = 3.0 / math.sqrt(len(support))
    steps = min(MAX_GRID, MIN_GRID + int(6 * math.sqrt(support.max())))
    angles = np.linspace(max(0.0, center - reach), min(math.pi / 2, center + reach), steps + 1)
    means = np.sin((angles[:-1] + angles[1:]) / 2) ** 2
    grid = np.meshgrid(means, PRIOR_STRENGTHS, indexing="ij")
    return grid[0].ravel(), grid[1].ravel()


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
    """Yield bootstrap samples [m, k, k] of a confusion matrix [k, k], in chunks; fewer with hundreds of classes.

    Drawing the images of a class with replacement is the same as drawing its row from a multinomial distribution.
    """
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    support = confusion.sum(axis=1)
    rates = _smoothed_rates(confusion, support)
    size = max(1, MAX_CELLS // confusion.size)
    num_resamples = min(MAX_RESAMPLES, max(MIN_RESAMPLES, MAX_SAMPLED_CELLS // confusion.size))
    for start in range(0, num_resamples, size):
        samples = np.zeros((min(size, num_resamples - start), *confusion.shape), dtype=np.int64)
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
