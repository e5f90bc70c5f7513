"""Calibration: the error by hand, and the temperature that is fitted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from models.evaluation.calibration import expected_calibration_error, fit_temperature, softmax


def drawn(count: int, true_temperature: float, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits [n, k], and labels drawn with the probabilities that these have at the true temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (count, classes))
    chances = softmax(logits, true_temperature)
    labels = (chances.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    return logits, labels


def test_the_error_is_the_textbooks() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    assert expected_calibration_error(probabilities, np.array([0, 1, 1, 1])) == pytest.approx((0.8 + 0.8) / 4)
    assert expected_calibration_error(np.eye(2), np.array([0, 1])) == 0
    assert expected_calibration_error(np.eye(2), np.array([1, 0])) == 1


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_and_makes_probabilities_honest(true_temperature: float) -> None:
    logits, labels = drawn(4000, true_temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(true_temperature, rel=0.1)
    later, truth = drawn(4000, true_temperature, seed=1)
    assert expected_calibration_error(softmax(later, found), truth) < 0.03
    if true_temperature != 1:
        assert expected_calibration_error(softmax(later, found), truth) < 0.5 * expected_calibration_error(
            softmax(later), truth
        )


def test_no_other_temperature_has_a_lower_loss() -> None:
    logits, labels = drawn(3000, 2.0)

    def loss(log_temperature: float) -> float:
        return float(-np.log(softmax(logits, np.exp(log_temperature))[np.arange(3000), labels]).mean())

    best = minimize_scalar(loss, bounds=(-2, 2), method="bounded")
    assert np.log(fit_temperature(logits, labels)) == pytest.approx(best.x, abs=0.02)


def test_no_prediction_changes() -> None:
    logits, labels = drawn(500, 3.0)
    assert np.array_equal(softmax(logits, fit_temperature(logits, labels)).argmax(axis=1), logits.argmax(axis=1))


def test_validation_without_a_mistake_does_not_ask_for_certainty() -> None:
    labels = np.arange(40) % 2
    probabilities = softmax(2 * np.eye(2)[labels], fit_temperature(2 * np.eye(2)[labels], labels))
    assert probabilities.max() == pytest.approx(21 / 22, abs=1e-3)


def test_one_picture_or_one_class_is_no_error() -> None:
    assert 0 < fit_temperature(np.array([[1.0, 0.0]]), np.array([0])) < 21
    assert fit_temperature(np.zeros((3, 2)), np.array([0, 1, 1])) > 0
