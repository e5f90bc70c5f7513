"""The paired test: against exact values, against full enumeration, and its false-positive rate."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from models.evaluation.metrics import compute_metrics
from tuning.common.option_types import Metric
from tuning.registry.paired_test import class_weights, compare_paired, permutation_p_value


@pytest.mark.parametrize(("wins", "losses", "expected"), [(3, 0, 1 / 8), (1, 1, 3 / 4), (0, 4, 1.0), (8, 2, 56 / 1024)])
def test_for_accuracy_it_is_mcnemars_exact_test(wins: int, losses: int, expected: float) -> None:
    support = np.array([700, 300])
    p_value = permutation_p_value(class_weights("accuracy", support), np.array([wins, 0]), np.array([0, losses]))
    assert p_value == pytest.approx(expected)


def test_for_balanced_accuracy_it_agrees_with_full_enumeration() -> None:
    support, wins, losses = np.array([10, 40]), np.array([3, 2]), np.array([1, 3])
    weights = class_weights("balanced_accuracy", support)
    image_weights = np.repeat(weights, wins + losses)
    gains = [float(np.dot(signs, image_weights)) for signs in itertools.product((-1, 1), repeat=len(image_weights))]
    expected = np.mean(np.array(gains) >= weights @ (wins - losses) - 1e-12)
    assert permutation_p_value(weights, wins, losses) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy"])
def test_the_metrics_agree_with_compute_metrics(metric: Metric) -> None:
    rng = np.random.default_rng(0)
    y_true = rng.choice(4, 200, p=(0.6, 0.2, 0.15, 0.05))
    candidate, champion = (
        np.where(rng.random(200) < accuracy, y_true, rng.integers(0, 4, 200)) for accuracy in (0.7, 0.4)
    )
    comparison = compare_paired(metric, y_true, candidate, champion)
    assert comparison.candidate == pytest.approx(getattr(compute_metrics(np.eye(4)[candidate], y_true), metric))
    assert comparison.champion == pytest.approx(getattr(compute_metrics(np.eye(4)[champion], y_true), metric))
    assert comparison.low < comparison.gain < comparison.high
    assert comparison.wins - comparison.losses == (candidate == y_true).sum() - (champion == y_true).sum()
    assert compare_paired(metric, y_true, candidate, champion) == comparison


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy"])
def test_the_false_positive_rate_is_at_most_5_percent(metric: Metric) -> None:
    rng, num_significant, rounds = np.random.default_rng(1), 0, 400
    y_true = np.repeat([0, 1], (70, 20))
    for _ in range(rounds):
        candidate, champion = (np.where(rng.random(90) < 0.8, y_true, 1 - y_true) for _ in range(2))
        support = np.bincount(y_true)
        wins = np.bincount(y_true[(candidate == y_true) & (champion != y_true)], minlength=2)
        losses = np.bincount(y_true[(champion == y_true) & (candidate != y_true)], minlength=2)
        num_significant += permutation_p_value(class_weights(metric, support), wins, losses) <= 0.05
    assert num_significant <= 0.05 * rounds + 2 * np.sqrt(0.05 * 0.95 * rounds)


def test_a_class_without_images_has_no_weight() -> None:
    y_true, candidate, champion = np.array([0, 0, 2, 2]), np.array([0, 0, 2, 1]), np.array([0, 1, 1, 1])
    comparison = compare_paired("balanced_accuracy", y_true, candidate, champion)
    assert (comparison.candidate, comparison.champion) == (0.75, 0.25)


def test_equal_predictions_have_p_value_1() -> None:
    labels = np.array([0, 1, 1])
    comparison = compare_paired("balanced_accuracy", labels, labels, labels)
    assert (comparison.p_value, comparison.gain, comparison.low, comparison.high) == (1.0, 0.0, 0.0, 0.0)
