"""Scores against scikit-learn's, and intervals."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from models.evaluation.inference import predict, run_epoch
from models.evaluation.intervals import confidence_interval, wilson_interval
from models.evaluation.metrics import ClassificationMetrics, Metric, compute_metrics
from tests.models.conftest import MakeBatches, MakeClassifier


def drawn(seed: int, count: int, classes: int, missing: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return random probabilities [n, k] and labels [n]; with ``missing`` the last class doesn't occur."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes - int(missing), count)
    logits = rng.normal(0, 1, (count, classes))
    logits[np.arange(count), labels] += 1
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True), labels


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 60), st.integers(2, 9), st.booleans())
def test_scores_are_scikit_learns(seed: int, count: int, classes: int, missing: bool) -> None:
    probabilities, labels = drawn(seed, count, classes, missing)
    predicted = probabilities.argmax(axis=1)
    found = compute_metrics(probabilities, labels)
    recalls = sk.recall_score(labels, predicted, labels=range(classes), average=None, zero_division=0)
    occurring = np.unique(labels)
    assert found.accuracy == pytest.approx(sk.accuracy_score(labels, predicted))
    assert found.balanced_accuracy == pytest.approx(recalls[occurring].mean())
    assert found.macro_f1 == pytest.approx(sk.f1_score(labels, predicted, average="macro", zero_division=0))
    assert found.loss == pytest.approx(sk.log_loss(labels, probabilities, labels=range(classes)))
    assert np.array_equal(found.confusion, sk.confusion_matrix(labels, predicted, labels=range(classes)))
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        labels, predicted, labels=range(classes), zero_division=0
    )
    rows = [(row.precision, row.recall, row.f1, row.support) for row in found.per_class]
    assert np.allclose(rows, np.stack([precision, recall, f1, support], axis=1))
    if classes > 5:
        assert found.top5_accuracy == pytest.approx(
            sk.top_k_accuracy_score(labels, probabilities, k=5, labels=range(classes))
        )
    else:
        assert found.top5_accuracy is None


def test_metrics_have_the_names_of_mlflow_and_top_five_only_with_more_than_five_classes() -> None:
    few = compute_metrics(*drawn(0, 20, 5)).to_dict("test")
    assert set(few) == {"test_loss", "test_accuracy", "test_balanced_accuracy", "test_macro_f1"}
    assert set(compute_metrics(*drawn(0, 20, 6)).to_dict("val")) - {"val_top5_accuracy"} == {
        "val_loss",
        "val_accuracy",
        "val_balanced_accuracy",
        "val_macro_f1",
    }


def test_classes_keep_their_names_and_scores_survive_json() -> None:
    found = compute_metrics(*drawn(0, 20, 3), class_names=("cat", "dog", "owl"))
    assert [row.name for row in found.per_class] == ["cat", "dog", "owl"]
    assert ClassificationMetrics.from_json(found.to_json()) == found


def test_certainty_of_the_wrong_class_is_a_finite_loss() -> None:
    assert compute_metrics(np.array([[1.0, 0.0]]), np.array([1])).loss == pytest.approx(708.4, abs=0.1)


def test_the_wilson_interval_is_the_textbooks() -> None:
    assert wilson_interval(45, 50) == pytest.approx((0.7864, 0.9565), abs=1e-4)
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1", "top5_accuracy"])
def test_an_interval_holds_the_metric_is_always_the_same_and_shrinks_with_more_pictures(metric: Metric) -> None:
    widths = []
    for count in (60, 600):
        probabilities, labels = drawn(1, count, 7)
        low, high = confidence_interval(metric, probabilities, labels)
        assert low <= getattr(compute_metrics(probabilities, labels), metric) <= high
        assert confidence_interval(metric, probabilities, labels) == (low, high)
        widths.append(high - low)
    assert widths[1] < widths[0]


def test_the_bootstrap_covers_the_truth_about_95_times_of_100() -> None:
    """Of a predictor whose recalls are known: 0.9 and 0.6."""
    rng, inside = np.random.default_rng(0), 0
    for _ in range(200):
        labels = np.repeat([0, 1], [80, 40])
        right = rng.random(120) < np.where(labels == 0, 0.9, 0.6)
        predicted = np.where(right, labels, 1 - labels)
        low, high = confidence_interval("balanced_accuracy", np.eye(2)[predicted], labels)
        inside += low <= 0.75 <= high
    assert 180 <= inside <= 198


def test_predictions_are_probabilities_in_the_order_of_the_batches(
    make_classifier: MakeClassifier, make_batches: MakeBatches
) -> None:
    classifier, batches = make_classifier(dropout=0.5), make_batches(20)
    probabilities, labels = predict(classifier, batches.epoch(0))
    assert probabilities.shape == (20, 3)
    assert (probabilities.dtype, labels.dtype) == (np.float64, np.int64)
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert np.array_equal(labels, batches.labels)
    assert not classifier.training
    again, _ = predict(classifier, make_batches(20, batch_size=20).epoch(0))
    assert np.allclose(probabilities, again, atol=1e-6)


def test_one_function_serves_training_and_validation(
    make_classifier: MakeClassifier, make_batches: MakeBatches
) -> None:
    classifier = make_classifier()
    seen: list[tuple[bool, int]] = []
    run_epoch(
        classifier, make_batches(20).epoch(0), lambda logits, labels: seen.append((logits.requires_grad, len(labels)))
    )
    assert seen == [(True, 8), (True, 8), (True, 4)]
    assert classifier.training
    logits, _ = run_epoch(classifier, make_batches(20).epoch(0))
    assert not classifier.training
    assert not logits.requires_grad
