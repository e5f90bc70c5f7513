"""What a probability is worth: how far it is from how often it is right, and the temperature that mends it.

Dividing all logits by one number, fitted on validation, leaves every prediction as it is and makes probabilities
honest (temperature scaling: Guo et al. 2017, "On Calibration of Modern Neural Networks").
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

NUM_BINS = 15  # as in Guo et al.
STEPS = 60  # each halves the range of the temperature's logarithm
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """Return the probabilities [n, k] of logits [n, k] divided by the temperature."""
    scaled = logits / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def expected_calibration_error(probabilities: Floats, labels: Labels) -> float:
    """Return the expected calibration error of probabilities [n, k] on labels [n], from 0 (honest) to 1.

    Pictures are put into ``NUM_BINS`` equal bins by the probability of their predicted class; in each bin the mean
    probability is compared with the share that is right.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """Return the temperature that gives the lowest cross-entropy for logits [n, k] and labels [n].

    The labels are softened as Platt's scaling does it (Platt 1999, section 2.2): n pictures that are all right don't
    prove that every later one will be, so a class's target is (n_c + 1) / (n_c + 2) where n_c pictures are of it.
    Without that, validation without a mistake would ask for certainty. The loss is convex in 1 / temperature.
    """
    targets = _platt_targets(labels, logits.shape[1])
    cold, hot = np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE)
    for _ in range(STEPS):
        middle = (cold + hot) / 2
        # The derivative of the loss by 1 / temperature; above 0 the answers are too sure.
        slope = ((softmax(logits, float(np.exp(middle))) - targets) * logits).sum()
        cold, hot = (middle, hot) if slope > 0 else (cold, middle)
    return float(np.exp((cold + hot) / 2))


def _platt_targets(labels: Labels, classes: int) -> Floats:
    counts = np.bincount(labels, minlength=classes)
    sure = ((counts + 1) / (counts + 2))[labels]
    targets = np.repeat(((1 - sure) / max(1, classes - 1))[:, None], classes, axis=1)
    targets[np.arange(len(labels)), labels] = sure
    return targets
