"""Metrics compared with scikit-learn, and confidence intervals."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.intervals import coverage
from models.evaluation.inference import predict, run_epoch
from models.evaluation.intervals import confidence_interval, mean_recall_interval, wilson_interval
from models.evaluation.metrics import ClassificationMetrics, MetricName, compute_metrics
from tests.models.conftest import MakeBatches, MakeClassifier


def random_predictions(seed: int, count: int, num_classes: int, missing: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return random probabilities [n, k] and labels [n]; with ``missing`` the last class doesn't occur."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes - int(missing), count)
    logits = rng.normal(0, 1, (count, num_classes))
    logits[np.arange(count), labels] += 1
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True), labels


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 60), st.integers(2, 9), st.booleans())
def test_metrics_equal_those_of_scikit_learn(seed: int, count: int, num_classes: int, missing: bool) -> None:
    probabilities, labels = random_predictions(seed, count, num_classes, missing)
    predicted = probabilities.argmax(axis=1)
    metrics = compute_metrics(probabilities, labels)
    recalls = sk.recall_score(labels, predicted, labels=range(num_classes), average=None, zero_division=0)
    occurring = np.unique(labels)
    assert metrics.accuracy == pytest.approx(sk.accuracy_score(labels, predicted))
    assert metrics.balanced_accuracy == pytest.approx(recalls[occurring].mean())
    assert metrics.macro_f1 == pytest.approx(sk.f1_score(labels, predicted, average="macro", zero_division=0))
    assert metrics.loss == pytest.approx(sk.log_loss(labels, probabilities, labels=range(num_classes)))
    assert np.array_equal(metrics.confusion, sk.confusion_matrix(labels, predicted, labels=range(num_classes)))
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        labels, predicted, labels=range(num_classes), zero_division=0
    )
    rows = [(row.precision, row.recall, row.f1, row.support) for row in metrics.per_class]
    assert np.allclose(rows, np.stack([precision, recall, f1, support], axis=1))
    if num_classes > 5:
        assert metrics.top5_accuracy == pytest.approx(
            sk.top_k_accuracy_score(labels, probabilities, k=5, labels=range(num_classes))
        )
    else:
        assert metrics.top5_accuracy is None


def test_metrics_have_mlflow_names_and_top5_only_with_more_than_five_classes() -> None:
    five_classes = compute_metrics(*random_predictions(0, 20, 5)).to_dict("test_")
    assert set(five_classes) == {"test_loss", "test_accuracy", "test_balanced_accuracy", "test_macro_f1"}
    assert set(compute_metrics(*random_predictions(0, 20, 6)).to_dict("val_")) - {"val_top5_accuracy"} == {
        "val_loss",
        "val_accuracy",
        "val_balanced_accuracy",
        "val_macro_f1",
    }


def test_classes_keep_their_names_and_metrics_survive_json() -> None:
    metrics = compute_metrics(*random_predictions(0, 20, 3), class_names=("cat", "dog", "owl"))
    assert [row.name for row in metrics.per_class] == ["cat", "dog", "owl"]
    assert ClassificationMetrics.from_json(metrics.to_json()) == metrics


def test_probability_1_for_the_wrong_class_gives_a_finite_loss() -> None:
    assert compute_metrics(np.array([[1.0, 0.0]]), np.array([1])).loss == pytest.approx(708.4, abs=0.1)


def test_wilson_intervals_match_textbook_values() -> None:
    assert wilson_interval(45, 50) == pytest.approx((0.7864, 0.9565), abs=1e-4)
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1"])
def test_intervals_contain_the_metric_are_reproducible_and_shrink_with_more_images(metric: MetricName) -> None:
    widths = []
    for count in (60, 600):
        probabilities, labels = random_predictions(1, count, 7)
        low, high = confidence_interval(metric, probabilities, labels)
        assert low <= getattr(compute_metrics(probabilities, labels), metric) <= high
        assert confidence_interval(metric, probabilities, labels) == (low, high)
        widths.append(high - low)
    assert widths[1] < widths[0]


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1"])
def test_the_interval_does_not_collapse_if_all_images_are_classified_correctly(metric: MetricName) -> None:
    labels = np.arange(64) % 2
    low, high = confidence_interval(metric, np.eye(2)[labels], labels)
    assert low == pytest.approx(wilson_interval(64, 64)[0], abs=0.03)
    assert high == 1


@pytest.mark.parametrize("images_per_class", [1, 3, 10, 100])
@pytest.mark.parametrize("num_classes", [2, 5, 20, 50])
def test_intervals_cover_the_true_value_in_about_95_percent_of_the_draws(
    num_classes: int, images_per_class: int
) -> None:
    covered = coverage(num_classes, images_per_class, 200, ("accuracy", "balanced_accuracy"))
    for share, width in covered.values():
        assert 0.91 <= share <= 0.99  # 200 draws: a standard error of 0.015
        assert width > 0


@pytest.mark.parametrize("num_classes", [5, 20])
def test_the_interval_of_macro_f1_covers_the_true_value_with_one_image_per_class(num_classes: int) -> None:
    ((share, _),) = coverage(num_classes, 1, 100, ("macro_f1",)).values()
    assert share >= 0.93  # 0.86 to 0.93 without the correction for bias


def test_the_interval_of_balanced_accuracy_is_reproducible_and_contains_the_estimate_of_uneven_classes() -> None:
    rng = np.random.default_rng(0)
    for num_classes in range(1, 60):
        support = rng.choice([1, 2, 8, 1000], size=num_classes)
        correct = rng.binomial(support, rng.uniform(0, 1, num_classes))
        low, high = mean_recall_interval(correct, support)
        assert 0 <= low <= np.mean(correct / support) <= high <= 1
        assert low < high
        assert mean_recall_interval(correct, support) == (low, high)


def test_predict_returns_probabilities_in_the_order_of_the_batches(
    make_classifier: MakeClassifier, make_batches: MakeBatches
) -> None:
    classifier, batches = make_classifier(dropout=0.5), make_batches(20)
    probabilities, labels = predict(classifier, batches.epoch(0))
    assert probabilities.shape == (20, 3)
    assert (probabilities.dtype, labels.dtype) == (np.float64, np.int64)
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert np.array_equal(labels, batches.labels)
    assert not classifier.training
    one_batch, _ = predict(classifier, make_batches(20, batch_size=20).epoch(0))
    assert np.allclose(probabilities, one_batch, atol=1e-6)


def test_run_epoch_serves_training_and_validation(make_classifier: MakeClassifier, make_batches: MakeBatches) -> None:
    classifier = make_classifier()
    calls: list[tuple[bool, int]] = []
    run_epoch(
        classifier, make_batches(20).epoch(0), lambda logits, labels: calls.append((logits.requires_grad, len(labels)))
    )
    assert calls == [(True, 8), (True, 8), (True, 4)]
    assert classifier.training
    logits, _ = run_epoch(classifier, make_batches(20).epoch(0))
    assert not classifier.training
    assert not logits.requires_grad
