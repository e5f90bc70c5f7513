"""Fitting the novelty of images: class means and a shared covariance of a trained network's features.

Shapes: n images, k classes, f features, r directions. ``models.evaluation.novelty_score`` computes the distances.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.evaluation.metrics import Floats, Labels
from models.evaluation.novelty_score import NoveltyScorer, unit_length

MAX_DIRECTIONS = 128  # more distinguish photo sets no better (``benchmarks.novelty``), and take 2 KB each
MAX_LEVELS = 256  # stored quantiles of the distances of validation images
MAX_BYTES = 10_000_000

Arrays = dict[str, npt.NDArray[Any]]


def fit_novelty(features: Floats, labels: Labels, held_out: Floats) -> Arrays | None:
    """Return the arrays of a ``NoveltyScorer`` for features [n, f] of training images with labels [n].

    ``held_out`` are the features [m, f] of images that the network has not seen; their distances define the levels.
    The covariance within classes is shrunk as in Ledoit and Wolf 2004, "A well-conditioned estimator for
    large-dimensional covariance matrices". None if there are too few images, or the arrays exceed 10 MB.
    """
    x = unit_length(features)
    classes, rows = np.unique(labels, return_inverse=True)
    num_directions = min(MAX_DIRECTIONS, len(x) - len(classes) - 1, x.shape[1] - 1)
    if num_directions < 1 or not len(held_out) or 2 * x.shape[1] * (len(classes) + num_directions) > MAX_BYTES:
        return None
    means = np.stack([x[rows == row].mean(axis=0) for row in range(len(classes))])
    variances, directions, rest_variance = _shrunk_covariance(x - means[rows], num_directions)
    arrays: Arrays = {
        "means": means.astype(np.float16),
        "directions": directions.astype(np.float16),
        "variances": variances.astype(np.float32),
        "rest_variance": np.array(rest_variance),
        "levels": np.ones(1),
        "shares": np.ones(1),
    }
    nearest = np.sort(NoveltyScorer(arrays).distances(held_out).min(axis=1))
    count = len(nearest)
    ranks = np.unique(np.linspace(0, count - 1, min(count, MAX_LEVELS)).round().astype(np.int64))
    return {**arrays, "levels": nearest[ranks], "shares": (ranks + 1) / (count + 1)}


def _shrunk_covariance(centered: Floats, num_directions: int) -> tuple[Floats, Floats, float]:
    """Return the largest eigenvalues [r] of the shrunk covariance, their eigenvectors [f, r], and the others' mean.

    ``centered`` are features [n, f] without the mean of their class.
    """
    from scipy.linalg import eigh
    from sklearn.covariance import ledoit_wolf_shrinkage

    count, width = centered.shape
    covariance = centered.T @ centered / count
    mean_variance = np.trace(covariance) / width
    shrinkage = float(ledoit_wolf_shrinkage(centered, assume_centered=True))
    values, vectors = eigh(covariance, subset_by_index=(width - num_directions, width - 1))
    shrunk = (1 - shrinkage) * values[::-1] + shrinkage * mean_variance
    rest_variance = (width * mean_variance - shrunk.sum()) / (width - num_directions)
    floor = np.finfo(np.float32).tiny  # of features without any variance
    return np.maximum(floor, shrunk), vectors[:, ::-1], max(floor, rest_variance)


def unseen_class_auroc(distances: Floats, labels: Labels) -> float | None:
    """Return how well each class would be noticed if the package did not know it; None with a single class.

    ``distances`` [n, k] are those of labeled images to the class means. For each class, its images are compared with
    all others by the distance to the nearest of the other classes' means: the result is the mean area under the ROC
    curve over the classes that have images. The network was trained with the class, so a new class is harder.
    """
    from sklearn.metrics import roc_auc_score

    areas = []
    for label in np.unique(labels):
        is_new = labels == label
        if is_new.all() or distances.shape[1] == 1:
            return None
        nearest = np.delete(distances, label, axis=1).min(axis=1)
        areas.append(roc_auc_score(is_new, nearest))
    return float(np.mean(areas))


def save_arrays(file: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays as a compressed file of NumPy."""
    np.savez_compressed(file, allow_pickle=False, **dict(arrays))
