"""The paired test: against SciPy's, against counting every case, and how often it is wrong."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from models.evaluation.metrics import compute_metrics
from tuning.common.promotion_types import Metric
from tuning.registry.paired_test import class_weights, compare_paired, permutation_p_value


@given(st.integers(0, 300), st.integers(0, 300))
def test_for_accuracy_it_is_mcnemars_exact_test(wins: int, losses: int) -> None:
    support = np.array([700, 300])
    found = permutation_p_value(class_weights("accuracy", support), np.array([wins, 0]), np.array([0, losses]))
    expected = binomtest(wins, wins + losses, 0.5, alternative="greater").pvalue if wins + losses else 1.0
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_for_balanced_accuracy_it_is_what_dealing_every_win_anew_gives() -> None:
    support, wins, losses = np.array([10, 40]), np.array([3, 2]), np.array([1, 3])
    weights = class_weights("balanced_accuracy", support)
    each = np.repeat(weights, wins + losses)
    gains = [float(np.dot(signs, each)) for signs in itertools.product((-1, 1), repeat=len(each))]
    expected = np.mean(np.array(gains) >= weights @ (wins - losses) - 1e-12)
    assert permutation_p_value(weights, wins, losses) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy"])
def test_the_metrics_are_those_of_evaluate(metric: Metric) -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice(4, 200, p=(0.6, 0.2, 0.15, 0.05))
    one, two = (np.where(rng.random(200) < share, truth, rng.integers(0, 4, 200)) for share in (0.7, 0.4))
    found = compare_paired(metric, truth, one, two)
    assert found.candidate == pytest.approx(getattr(compute_metrics(np.eye(4)[one], truth), metric))
    assert found.champion == pytest.approx(getattr(compute_metrics(np.eye(4)[two], truth), metric))
    assert found.low < found.gain < found.high
    assert found.wins - found.losses == (one == truth).sum() - (two == truth).sum()
    assert compare_paired(metric, truth, one, two) == found


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy"])
def test_of_two_that_are_equally_good_one_is_called_better_at_most_5_times_in_100(metric: Metric) -> None:
    rng, called, rounds = np.random.default_rng(1), 0, 400
    truth = np.repeat([0, 1], (70, 20))
    for _ in range(rounds):
        one, two = (np.where(rng.random(90) < 0.8, truth, 1 - truth) for _ in range(2))
        support = np.bincount(truth)
        wins = np.bincount(truth[(one == truth) & (two != truth)], minlength=2)
        losses = np.bincount(truth[(two == truth) & (one != truth)], minlength=2)
        called += permutation_p_value(class_weights(metric, support), wins, losses) <= 0.05
    assert called <= 0.05 * rounds + 2 * np.sqrt(0.05 * 0.95 * rounds)


def test_a_class_without_pictures_counts_for_nothing() -> None:
    found = compare_paired("balanced_accuracy", np.array([0, 0, 2, 2]), np.array([0, 0, 2, 1]), np.array([0, 1, 1, 1]))
    assert (found.candidate, found.champion) == (0.75, 0.25)


def test_two_of_the_same_answers_are_no_proof() -> None:
    same = np.array([0, 1, 1])
    found = compare_paired("balanced_accuracy", same, same, same)
    assert (found.p_value, found.gain, found.low, found.high) == (1.0, 0.0, 0.0, 0.0)
