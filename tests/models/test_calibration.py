"""Calibration error against hand-computed values, and fitted temperatures."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from models.evaluation.calibration import expected_calibration_error, fit_temperature, softmax


def random_predictions(
    count: int, true_temperature: float, num_classes: int = 4, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return logits [n, k], and labels sampled from their probabilities at the true temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (count, num_classes))
    probabilities = softmax(logits, true_temperature)
    labels = (probabilities.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    return logits, labels


def test_the_calibration_error_matches_hand_computed_values() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    assert expected_calibration_error(probabilities, np.array([0, 1, 1, 1])) == pytest.approx((0.8 + 0.8) / 4)
    assert expected_calibration_error(np.eye(2), np.array([0, 1])) == 0
    assert expected_calibration_error(np.eye(2), np.array([1, 0])) == 1


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 3.0])
def test_the_true_temperature_is_recovered_and_calibrates_new_predictions(true_temperature: float) -> None:
    logits, labels = random_predictions(4000, true_temperature)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(true_temperature, rel=0.1)
    new_logits, new_labels = random_predictions(4000, true_temperature, seed=1)
    assert expected_calibration_error(softmax(new_logits, temperature), new_labels) < 0.03
    if true_temperature != 1:
        uncalibrated = expected_calibration_error(softmax(new_logits), new_labels)
        assert expected_calibration_error(softmax(new_logits, temperature), new_labels) < 0.5 * uncalibrated


def test_no_other_temperature_has_a_lower_loss() -> None:
    logits, labels = random_predictions(3000, 2.0)

    def loss(log_temperature: float) -> float:
        return float(-np.log(softmax(logits, np.exp(log_temperature))[np.arange(3000), labels]).mean())

    best = minimize_scalar(loss, bounds=(-2, 2), method="bounded")
    assert np.log(fit_temperature(logits, labels)) == pytest.approx(best.x, abs=0.02)


def test_the_temperature_changes_no_predicted_class() -> None:
    logits, labels = random_predictions(500, 3.0)
    assert np.array_equal(softmax(logits, fit_temperature(logits, labels)).argmax(axis=1), logits.argmax(axis=1))


def test_a_validation_split_without_errors_does_not_lead_to_probability_1() -> None:
    labels = np.arange(40) % 2
    probabilities = softmax(2 * np.eye(2)[labels], fit_temperature(2 * np.eye(2)[labels], labels))
    assert probabilities.max() == pytest.approx(21 / 22, abs=1e-3)


def test_one_image_or_constant_logits_are_accepted() -> None:
    assert 0 < fit_temperature(np.array([[1.0, 0.0]]), np.array([0])) < 21
    assert fit_temperature(np.zeros((3, 2)), np.array([0, 1, 1])) > 0
