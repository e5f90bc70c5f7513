"""How far an image lies from the training images of a packaged model; it imports nothing from the project that made it.

Shapes: n images, k classes, f features, r directions.

The distance is that of Mahalanobis to the nearest class mean, with one covariance for all classes (Lee et al. 2018, "A
Simple Unified Framework for Detecting Out-of-Distribution Samples"), on features of length 1 (Müller and Hein 2025,
"Mahalanobis++"). Only the r directions of largest variance are stored; all others have the same variance. The novelty
of an image is the share of validation images that lie nearer: ``novelty > 0.99`` holds for 1% of images like these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

NUM_SUMMARIES = 8  # directions whose coordinates describe an image for monitoring


class NoveltyScorer:
    """Computes the novelty of images from the features of the package's first network.

    Attributes:
        means: of the classes [k, f], of length below 1.
        directions: orthonormal columns [f, r].
        variances: within classes, along the directions [r].
        rest_variance: along every other direction.
        levels: distances of validation images, ascending.
        shares: the share of validation images below each level.
    """

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take the arrays of ``novelty.npz``."""
        self.means = arrays["means"].astype(np.float64)
        self.directions = arrays["directions"].astype(np.float64)
        self.variances = arrays["variances"].astype(np.float64)
        self.rest_variance = float(arrays["rest_variance"])
        self.levels = arrays["levels"].astype(np.float64)
        self.shares = arrays["shares"].astype(np.float64)

    def distances(self, features: npt.NDArray[Any]) -> Floats:
        """Return the squared distances [n, k] of features [n, f] to each class mean."""
        x = unit_length(features)
        points, centers = x @ self.directions, self.means @ self.directions
        stored = _squares(points, centers)
        whitened = _squares(points / np.sqrt(self.variances), centers / np.sqrt(self.variances))
        return np.asarray(whitened + np.maximum(0, _squares(x, self.means) - stored) / self.rest_variance)

    def novelty(self, features: npt.NDArray[Any]) -> Floats:
        """Return the novelty [n] of features [n, f], above 0 and below 1, strictly increasing with the distance."""
        nearest = self.distances(features).min(axis=1)
        share = np.interp(nearest, [0.0, *self.levels], [0.0, *self.shares])
        last, rest = self.levels[-1], 1 - self.shares[-1]
        # Beyond all validation images an exponential tail, through their median.
        scale = max((last - np.median(self.levels)) / np.log(0.5 / rest), 1e-9)
        return np.asarray(np.where(nearest > last, 1 - rest * np.exp(-(nearest - last) / scale), share))

    def summaries(self, features: npt.NDArray[Any]) -> Floats:
        """Return the coordinates [n, 8] of features [n, f] along the first directions, in standard deviations."""
        along = (unit_length(features) - self.means.mean(axis=0)) @ self.directions[:, :NUM_SUMMARIES]
        return np.asarray(along / np.sqrt(self.variances[:NUM_SUMMARIES]))


def unit_length(features: npt.NDArray[Any]) -> Floats:
    """Return features [n, f] scaled to length 1."""
    doubles = features.astype(np.float64)
    return np.asarray(doubles / np.maximum(np.linalg.norm(doubles, axis=1, keepdims=True), np.finfo(np.float64).tiny))


def _squares(points: Floats, centers: Floats) -> Floats:
    """Return the squared Euclidean distances [n, k] of points [n, r] to centers [k, r]."""
    squares = (points**2).sum(axis=1)[:, None] - 2 * points @ centers.T + (centers**2).sum(axis=1)
    return np.asarray(np.maximum(0, squares))
