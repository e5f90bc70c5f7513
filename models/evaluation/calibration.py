"""Calibration: the expected calibration error, and temperature scaling to reduce it.

Temperature scaling divides all logits by one number fitted on the validation split, which calibrates the
probabilities and leaves the predicted classes unchanged (Guo et al. 2017, "On Calibration of Modern Neural Networks").
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

NUM_BINS = 15  # as in Guo et al.
NUM_FOLDS = 5  # of the cross-validation that decides whether to calibrate
BISECTION_STEPS = 20  # each halves the range of the temperature's logarithm
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.5, 3.0


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """Return the probabilities [n, k] of logits [n, k] divided by the temperature."""
    return np.asarray(special.softmax(logits / temperature, axis=1))


class ReliabilityBin(NamedTuple):
    """The images whose confidence (the probability of the predicted class) lies in one interval."""

    num_images: int
    mean_confidence: float
    accuracy: float


def reliability_bins(probabilities: Floats, labels: Labels) -> list[ReliabilityBin]:
    """Return the non-empty bins of probabilities [n, k] on labels [n]: ``NUM_BINS`` equal intervals of confidence."""
    confidence = probabilities.max(axis=1)
    is_correct = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    return [
        ReliabilityBin(int(inside.sum()), float(confidence[inside].mean()), float(is_correct[inside].mean()))
        for inside in (bins == number for number in np.unique(bins))
    ]


def expected_calibration_error(probabilities: Floats, labels: Labels) -> float:
    """Return the expected calibration error of probabilities [n, k] on labels [n], from 0 (calibrated) to 1.

    It is the mean over all images of the difference between confidence and accuracy in an image's reliability bin.
    """
    bins = reliability_bins(probabilities, labels)
    return sum(each.num_images * abs(each.mean_confidence - each.accuracy) for each in bins) / len(labels)


def apply_temperature(probabilities: Floats, temperature: float) -> Floats:
    """Return uncalibrated probabilities [n, k] calibrated with ``temperature``."""
    return softmax(np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)), temperature)


def remove_temperature(probabilities: Floats, temperature: float) -> Floats:
    """Return the probabilities [n, k] before they were calibrated with ``temperature``."""
    return apply_temperature(probabilities, 1 / temperature)


def choose_temperature(logits: Floats, labels: Labels) -> float:
    """Return the temperature for logits [n, k] and labels [n]; 1 unless calibration improves the loss on other images.

    The loss of each image at the temperature fitted on the other folds is compared with its loss at temperature 1; the
    mean gain must exceed one standard error. A temperature fitted on a few dozen images often makes the
    probabilities of other images worse; ``python -m benchmarks.calibration`` measures how often, with and without
    this rule.
    """
    return fit_temperature(logits, labels) if _calibration_gains(logits, labels) is not None else 1.0


def cross_fitted_loss(logits: Floats, labels: Labels) -> Floats:
    """Return the cross-entropy [n] of each image at the temperature that was fitted without its fold.

    It is that of temperature 1 if ``choose_temperature`` returns 1.
    """
    losses, gains = cross_entropy(logits, labels, 1.0), _calibration_gains(logits, labels)
    return losses if gains is None else losses - gains


def _calibration_gains(logits: Floats, labels: Labels) -> Floats | None:
    """Return by how much a temperature fitted on the other folds reduces each image's loss [n]; None if it does not."""
    count = len(labels)
    if count < NUM_FOLDS:
        return None
    folds = np.random.default_rng(0).permutation(count) % NUM_FOLDS
    gains = cross_entropy(logits, labels, 1.0)
    for fold in range(NUM_FOLDS):
        held_out = folds == fold
        temperature = fit_temperature(logits[~held_out], labels[~held_out])
        gains[held_out] -= cross_entropy(logits[held_out], labels[held_out], temperature)
    return gains if gains.mean() > gains.std(ddof=1) / np.sqrt(count) else None


def cross_entropy(logits: Floats, labels: Labels, temperature: float) -> Floats:
    """Return the cross-entropy [n] of each image for logits [n, k] and labels [n]."""
    true_class = softmax(logits, temperature)[np.arange(len(labels)), labels]
    return np.asarray(-np.log(np.maximum(true_class, np.finfo(np.float64).tiny)))


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """Return the temperature with the lowest cross-entropy for logits [n, k] and labels [n], within the bounds.

    The loss is convex in 1 / temperature, so bisection finds the minimum. Of the targets, 1 / (n + 2) is spread over
    the other classes (Laplace's rule for one more image): labels without any error would demand certainty.
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    target_sum = (_smoothed_targets(labels, logits.shape[1]) * shifted).sum()
    low, high = np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE)
    powers = np.empty_like(shifted)  # reused: with many classes, new arrays take longer than the powers
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        np.exp(np.multiply(shifted, np.exp(-middle), out=powers), out=powers)
        expected = np.einsum("ij,ij->i", powers, shifted) / powers.sum(axis=1)
        # Derivative of the loss with respect to 1 / temperature; positive if the model is overconfident.
        low, high = (middle, high) if expected.sum() > target_sum else (low, middle)
    return float(np.exp((low + high) / 2))


def _smoothed_targets(labels: Labels, num_classes: int) -> Floats:
    """Return the smoothed targets [n, k] of labels [n]."""
    error = 1 / (len(labels) + 2)
    targets = np.full((len(labels), num_classes), error / max(1, num_classes - 1))
    targets[np.arange(len(labels)), labels] = 1 - error
    return targets
