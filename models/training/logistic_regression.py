"""Multinomial logistic regression with an L2 penalty, fitted to convergence by L-BFGS (scikit-learn).

The regression of a linear probe: standardized features, and a path of penalties from strong to weak, of which
cross-validation chooses one. Each fit starts from the previous one of the path.

Shapes: n images, f features, k classes.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data.dataset.folds import ALWAYS_TRAINING, Folds
from models.evaluation.calibration import cross_entropy
from models.evaluation.estimate import class_balanced_mean
from models.evaluation.metrics import Floats, Labels

Features = npt.NDArray[np.float32]

C_PATH = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # inverse strengths of the penalty, as scikit-learn's C
CHUNK_SIZE = 1024  # images whose features are converted to float64 at once
LOGIT_OF_ABSENT_CLASS = -30.0  # of a class without training images
MAX_ITERATIONS = 200  # of L-BFGS per fit
MIN_RELATIVE_STD = 1e-4  # of the largest standard deviation; a feature that varies less is nearly constant
MIN_RELATIVE_EIGENVALUE = 1e-7  # of the largest; smaller ones are rounding errors of the float32 features


@dataclass(frozen=True)
class LinearLayer:
    """A linear layer on raw features: logits = features @ weight.T + bias, with weight [k, f] and bias [k]."""

    weight: Floats
    bias: Floats

    def logits(self, features: Features) -> Floats:
        """Return the logits [n, k] of features [n, f]."""
        logits = np.empty((len(features), len(self.bias)))
        for rows in _chunks(len(features)):
            logits[rows] = features[rows] @ self.weight.T + self.bias
        return logits


class FeatureSpace:
    """Standardized features of a set of images, in as few dimensions as possible.

    With fewer images than features, the features are rotated into the space that the images span. The penalty is
    invariant to a rotation, so the fitted function stays the same, at a fraction of the cost.

    Attributes:
        coordinates: the features of the images in that space, float32 [n, r].
    """

    def __init__(self, features: Features, is_training: npt.NDArray[np.bool_]) -> None:
        """Take features [n, f]; the mean and the standard deviation are those of the images marked in ``is_training``.

        Nearly constant features are dropped.
        """
        self._num_features = features.shape[1]
        self._mean, std = _mean_and_std(features, np.flatnonzero(is_training))
        self._kept = std > MIN_RELATIVE_STD * std.max()
        self._std = std[self._kept]
        standardized = np.empty((len(features), len(self._std)), dtype=np.float32)
        for rows in _chunks(len(features)):
            standardized[rows] = (features[rows] - self._mean)[:, self._kept] / self._std  # in float64, a part at once
        self._basis: Features | None = None
        self.coordinates = standardized
        if len(standardized) < standardized.shape[1]:
            self._basis = _row_space(standardized)
            self.coordinates = standardized @ self._basis

    def to_linear_layer(self, coefficients: Floats, intercept: Floats) -> LinearLayer:
        """Return the layer on raw features for coefficients [k, r] and an intercept [k] on the coordinates."""
        on_standardized = coefficients if self._basis is None else coefficients @ self._basis.T.astype(np.float64)
        weight = np.zeros((len(coefficients), self._num_features))
        weight[:, self._kept] = on_standardized / self._std
        return LinearLayer(weight, intercept - weight @ self._mean)


def _chunks(count: int) -> list[npt.NDArray[np.intp]]:
    """Return row numbers in chunks: copies and float64 values of all rows at once would multiply the memory."""
    return np.array_split(np.arange(count), max(1, count // CHUNK_SIZE))


def _mean_and_std(features: Features, rows: npt.NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Return the mean and the standard deviation [f] of some rows of features [n, f]."""
    chunks = [rows[chunk] for chunk in _chunks(len(rows))]
    mean = sum(features[chunk].sum(axis=0, dtype=np.float64) for chunk in chunks) / len(rows)
    variance = sum(np.square(features[chunk] - mean).sum(axis=0) for chunk in chunks) / len(rows)
    return mean, np.sqrt(variance)


def _row_space(matrix: Features) -> Features:
    """Return an orthonormal basis [f, r] of the space that the rows of a matrix [n, f] span, for n < f."""
    eigenvalues, vectors = np.linalg.eigh((matrix @ matrix.T).astype(np.float64))
    kept = eigenvalues > MIN_RELATIVE_EIGENVALUE * eigenvalues[-1]
    return np.asarray(matrix.T @ (vectors[:, kept] / np.sqrt(eigenvalues[kept])).astype(np.float32))


@dataclass(frozen=True)
class CrossValidation:
    """The chosen inverse penalty ``c``, and the logits [n, k] of each image from the fit that held it out.

    Images that are never held out have NaN. ``only_fit`` has the coefficients [k, r] and the intercept [k] if there is
    a single fold, whose fit is that of all other images.
    """

    c: float
    logits: Floats
    only_fit: tuple[Floats, Floats] | None = None


class _Path:
    """Fits on the same images with ever weaker penalties, each starting from the previous one."""

    def __init__(self, x: Features, labels: Labels, num_classes: int, is_balanced: bool) -> None:
        from sklearn.linear_model import LogisticRegression

        self._x, self._labels, self._num_classes = x, labels, num_classes
        self._model: Any = LogisticRegression(
            warm_start=True, max_iter=MAX_ITERATIONS, class_weight="balanced" if is_balanced else None
        )

    def fit(self, c: float) -> tuple[Floats, Floats]:
        """Return the coefficients [k, r] and the intercept [k]."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a fit that reaches the maximum number of iterations is good enough
            self._model.set_params(C=c).fit(self._x, self._labels)
        coefficients, intercept = self._model.coef_.astype(np.float64), self._model.intercept_.astype(np.float64)
        if len(coefficients) == 1:  # two classes: the logit of the second
            coefficients, intercept = np.vstack([-coefficients, coefficients]) / 2, np.append(-intercept, intercept) / 2
        present = self._model.classes_
        all_coefficients = np.zeros((self._num_classes, coefficients.shape[1]))
        all_intercepts = np.full(self._num_classes, LOGIT_OF_ABSENT_CLASS)
        all_coefficients[present], all_intercepts[present] = coefficients, intercept
        return all_coefficients, all_intercepts


def cross_validate(
    coordinates: Features, labels: Labels, folds: Folds, num_classes: int, is_balanced: bool
) -> CrossValidation:
    """Choose the penalty with the lowest class-balanced log loss over held-out images.

    The path ends when a weaker penalty is worse. ``is_balanced`` weights the classes equally in the fits.
    """
    paths = []
    for fold in range(folds.max() + 1):
        held_out = folds == fold
        paths.append((held_out, _Path(coordinates[~held_out], labels[~held_out], num_classes, is_balanced)))
    is_scored = folds != ALWAYS_TRAINING
    best, best_loss = CrossValidation(C_PATH[0], np.zeros((0, 0))), np.inf
    for c in C_PATH:
        logits = np.full((len(labels), num_classes), np.nan)
        for held_out, path in paths:
            coefficients, intercept = path.fit(c)
            logits[held_out] = coordinates[held_out] @ coefficients.T + intercept
        loss = class_balanced_mean(cross_entropy(logits[is_scored], labels[is_scored], 1.0), labels[is_scored])
        if loss >= best_loss:
            break
        best, best_loss = CrossValidation(c, logits, (coefficients, intercept) if len(paths) == 1 else None), loss
    return best


def fit(coordinates: Features, labels: Labels, c: float, num_classes: int, is_balanced: bool) -> tuple[Floats, Floats]:
    """Return the coefficients [k, r] and the intercept [k] of a fit with the inverse penalty ``c``."""
    path = _Path(coordinates, labels, num_classes, is_balanced)
    for earlier in C_PATH:
        if earlier < c:
            path.fit(earlier)
    return path.fit(c)
