"""Means over images with standard errors: class balance, groups, and samples without a mistake."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation.estimate import balanced_accuracy_estimate, class_balanced_estimate


def test_all_classes_have_the_same_weight() -> None:
    labels = np.array([0, 0, 0, 1])
    estimate = class_balanced_estimate(np.array([1.0, 1.0, 1.0, 0.0]), labels, np.arange(4))
    assert estimate.mean == pytest.approx(0.5)


def test_images_of_one_group_count_as_one_for_the_error() -> None:
    labels, values = np.tile([0, 1], 50), np.random.default_rng(0).normal(size=100)
    alone = class_balanced_estimate(values, labels, np.arange(100)).standard_error
    copies = class_balanced_estimate(np.repeat(values, 4), np.repeat(labels, 4), np.repeat(np.arange(100), 4))
    assert copies.standard_error == pytest.approx(alone)


@pytest.mark.parametrize("per_class", [1, 3, 50])
def test_a_sample_without_a_mistake_has_an_error_that_falls_with_its_size(per_class: int) -> None:
    labels = np.repeat([0, 1], per_class)
    estimate = balanced_accuracy_estimate(np.ones(2 * per_class), labels, np.arange(2 * per_class))
    assert estimate.mean == pytest.approx(1)
    assert 0.3 / (per_class + 1.5) < estimate.standard_error < 0.6 / (per_class + 1)


def test_the_error_of_a_balanced_accuracy_covers_the_truth() -> None:
    """Two standard errors contain the true balanced accuracy in at least 90 % of samples, also near 1."""
    rng = np.random.default_rng(0)
    for accuracy, per_class in ((0.98, 20), (0.8, 20), (0.6, 10)):
        labels = np.repeat(np.arange(4), per_class)
        covered = []
        for _ in range(300):
            correct = (rng.random(len(labels)) < accuracy).astype(float)
            mean, error = balanced_accuracy_estimate(correct, labels, np.arange(len(labels)))
            covered.append(abs(mean - accuracy) < 2 * error)
        assert np.mean(covered) > 0.9, (accuracy, per_class)
