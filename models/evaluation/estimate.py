"""Means over images with their standard errors, all classes having the same weight.

Shapes: n images, k classes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.evaluation.metrics import Floats, Labels


class Estimate(NamedTuple):
    """A mean over images and its standard error."""

    mean: float
    standard_error: float


def class_balanced_weights(labels: Labels) -> Floats:
    """Return the weights [n] of images in a mean over the means of the classes that occur; they sum to 1."""
    counts = np.bincount(labels)
    return np.asarray(1 / (np.count_nonzero(counts) * counts[labels]))


def class_balanced_mean(values: Floats, labels: Labels) -> float:
    """Return the mean over the means of the classes of values [n]."""
    return float((class_balanced_weights(labels) * values).sum())


def class_balanced_estimate(values: Floats, labels: Labels, groups: npt.NDArray[np.int64]) -> Estimate:
    """Return the class-balanced mean of values [n] with its standard error.

    Images of one group (ids [n]) vary together, so the error is computed over groups: the linearized variance of a
    weighted mean of clusters (Cochran, "Sampling Techniques", 3rd ed., 1977, chapter 9).
    """
    mean = class_balanced_mean(values, labels)
    deviations = np.bincount(groups, class_balanced_weights(labels) * (values - mean))
    num_groups = len(np.unique(groups))
    variance = float((deviations**2).sum()) * num_groups / max(1, num_groups - 1)
    return Estimate(mean, math.sqrt(variance))


def balanced_accuracy_estimate(correct: Floats, labels: Labels, groups: npt.NDArray[np.int64]) -> Estimate:
    """Return the balanced accuracy of correct [n] (1 or 0) with its standard error.

    The error is at least that of recalls with Jeffreys' prior, Beta(1/2, 1/2), because the variance in a sample without
    a mistake is 0, which says little about the next images.
    """
    mean, standard_error = class_balanced_estimate(correct, labels, groups)
    counts, hits = np.bincount(labels), np.bincount(labels, correct)
    occurs = counts > 0
    recalls = (hits[occurs] + 0.5) / (counts[occurs] + 1)
    variances = recalls * (1 - recalls) / (counts[occurs] + 2)
    return Estimate(mean, max(standard_error, math.sqrt(variances.sum()) / occurs.sum()))
