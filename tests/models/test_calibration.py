"""Calibration error against hand-computed values, fitted temperatures, and when calibration is used at all."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from benchmarks.calibration import Draw, simulate
from models.evaluation.calibration import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    choose_temperature,
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
    remove_temperature,
    softmax,
)


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


def test_the_reliability_bins_hold_count_confidence_and_accuracy() -> None:
    probabilities = np.array([[0.9, 0.1], [0.92, 0.08], [0.45, 0.55]])
    low, high = reliability_bins(probabilities, np.array([0, 1, 1]))
    assert low == (1, pytest.approx(0.55), 1.0)
    assert high == (2, pytest.approx(0.91), 0.5)


@pytest.mark.parametrize("true_temperature", [0.6, 1.0, 2.5])
def test_the_true_temperature_is_recovered_and_calibrates_new_predictions(true_temperature: float) -> None:
    logits, labels = random_predictions(4000, true_temperature)
    assert fit_temperature(logits, labels) == pytest.approx(true_temperature, rel=0.1)
    temperature = choose_temperature(logits, labels)
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


def test_the_temperature_changes_no_predicted_class_and_can_be_removed() -> None:
    logits, labels = random_predictions(500, 3.0)
    calibrated = softmax(logits, fit_temperature(logits, labels))
    assert np.array_equal(calibrated.argmax(axis=1), logits.argmax(axis=1))
    assert remove_temperature(calibrated, fit_temperature(logits, labels)) == pytest.approx(softmax(logits))


def test_a_small_validation_split_without_errors_does_not_lead_to_probability_1() -> None:
    labels = np.arange(20) % 2
    logits = 2 * np.eye(2)[labels]
    assert softmax(logits, choose_temperature(logits, labels)).max() < 0.96


def test_a_confident_network_that_is_right_stays_confident() -> None:
    """Softening each class by its few images once made the probability of obvious images 0.35."""
    labels = np.arange(64) % 16
    logits = 12 * np.eye(16)[labels]
    assert softmax(logits, choose_temperature(logits, labels)).max(axis=1).min() > 0.95


def test_one_image_or_constant_logits_are_accepted() -> None:
    assert choose_temperature(np.array([[1.0, 0.0]]), np.array([0])) == 1
    assert choose_temperature(np.zeros((3, 2)), np.array([0, 1, 1])) == 1
    assert choose_temperature(np.zeros((30, 2)), np.arange(30) % 2) == 1
    assert MIN_TEMPERATURE <= fit_temperature(np.zeros((3, 2)), np.array([0, 1, 1])) <= MAX_TEMPERATURE


def test_calibration_rarely_makes_new_predictions_worse_and_helps_an_overconfident_network() -> None:
    draws: list[Draw] = []
    for seed, (count, num_classes, factor) in enumerate(product((20, 60, 200), (2, 5, 20), (0.7, 1.0, 1.5, 2.0))):
        draws += [
            simulate(count, num_classes, factor, separation, 10 * seed + at)
            for at, separation in enumerate((1.5, 2.5, 3.5))
        ]
    assert np.mean([draw.after <= draw.before + 0.01 for draw in draws]) >= 0.95
    overconfident = [draw for draw in draws if draw.factor == 2 and draw.num_images >= 200]
    assert np.mean([draw.after for draw in overconfident]) < 0.5 * np.mean([draw.before for draw in overconfident])
