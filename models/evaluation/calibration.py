"""Calibration: the expected calibration error, and temperature scaling to reduce it.

Temperature scaling divides all logits by one number fitted on the validation split, which calibrates the
probabilities and leaves the predicted classes unchanged (Guo et al. 2017, "On Calibration of Modern Neural Networks").
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

NUM_BINS = 15  # as in Guo et al.
BISECTION_STEPS = 60  # each halves the range of the temperature's logarithm
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """Return the probabilities [n, k] of logits [n, k] divided by the temperature."""
    return np.asarray(special.softmax(logits / temperature, axis=1))


def expected_calibration_error(probabilities: Floats, labels: Labels) -> float:
    """Return the expected calibration error of probabilities [n, k] on labels [n], from 0 (calibrated) to 1.

    Images are grouped into ``NUM_BINS`` equal bins by the probability of their predicted class. In each bin the mean
    probability is compared with the accuracy.
    """
    confidence = probabilities.max(axis=1)
    is_correct = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - is_correct, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """Return the temperature with the lowest cross-entropy for logits [n, k] and labels [n].

    The loss is convex in 1 / temperature, so bisection finds the minimum. The targets are smoothed as in Platt
    scaling (Platt 1999, section 2.2): with n_c images of a class, its target is (n_c + 1) / (n_c + 2). Without that, a
    validation split without errors would drive the probabilities to 1.
    """
    targets = _platt_targets(labels, logits.shape[1])
    low, high = np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE)
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        # Derivative of the loss with respect to 1 / temperature; positive if the model is overconfident.
        slope = ((softmax(logits, float(np.exp(middle))) - targets) * logits).sum()
        low, high = (middle, high) if slope > 0 else (low, middle)
    return float(np.exp((low + high) / 2))


def _platt_targets(labels: Labels, num_classes: int) -> Floats:
    """Return the smoothed targets [n, k] of labels [n]."""
    counts = np.bincount(labels, minlength=num_classes)
    true_class = ((counts + 1) / (counts + 2))[labels]
    targets = np.repeat(((1 - true_class) / max(1, num_classes - 1))[:, None], num_classes, axis=1)
    targets[np.arange(len(labels)), labels] = true_class
    return targets
