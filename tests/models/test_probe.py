"""Linear probes: logistic regression, cross-validation, and the head that it becomes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from data.dataset.folds import ALWAYS_TRAINING, stratified_group_folds
from models.evaluation.calibration import cross_entropy
from models.evaluation.inference import predict
from models.training.logistic_regression import (
    C_PATH,
    LOGIT_OF_ABSENT_CLASS,
    FeatureSpace,
    cross_validate,
    fit,
)
from models.training.probe import fit_probe, oof_metrics, set_head
from tests.models.conftest import CLASSES, MakeBatches, MakeClassifier


def features(count: int, num_features: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return features [n, f] of three classes that overlap, in different units, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    centers = rng.normal(size=(3, num_features))
    x = centers[labels] + 3 * rng.normal(size=(count, num_features))
    return (x * rng.uniform(0.01, 100, num_features) + 5).astype(np.float32), labels


@pytest.mark.parametrize("num_features", [20, 200])
def test_the_layer_on_raw_features_is_the_regression_on_standardized_ones(num_features: int) -> None:
    x, y = features(90, num_features)
    space = FeatureSpace(x, np.ones(len(x), dtype=bool))
    layer = space.to_linear_layer(*fit(space.coordinates, y, 0.1, 3, is_balanced=False))
    standardized = (x - x.mean(axis=0)) / x.std(axis=0)
    model = LogisticRegression(C=0.1, tol=1e-6, max_iter=1000).fit(standardized, y)
    expected = model.predict_log_proba(standardized)
    actual = torch.from_numpy(layer.logits(x)).log_softmax(dim=1).numpy()
    np.testing.assert_allclose(actual, expected, atol=0.02)


def test_with_fewer_images_than_features_the_coordinates_have_a_dimension_per_image() -> None:
    x, _ = features(30, 500)
    space = FeatureSpace(x, np.ones(len(x), dtype=bool))
    assert space.coordinates.shape[1] < 30
    standardized = (x - x.mean(axis=0)) / x.std(axis=0)
    np.testing.assert_allclose(
        space.coordinates @ space.coordinates.T, standardized @ standardized.T, rtol=1e-3, atol=0.5
    )


def test_nearly_constant_features_get_no_weight() -> None:
    x, y = features(60, 10)
    x[:, 3] = 7 + 1e-6 * np.arange(60)
    space = FeatureSpace(x, np.ones(len(x), dtype=bool))
    layer = space.to_linear_layer(*fit(space.coordinates, y, 1.0, 3, is_balanced=False))
    assert (layer.weight[:, 3] == 0).all()
    assert (layer.weight[:, 4] != 0).all()


def test_standardization_uses_the_training_images_only() -> None:
    x, _ = features(60, 10)
    is_training = np.arange(60) < 40
    np.testing.assert_allclose(FeatureSpace(x, is_training).coordinates[is_training].mean(axis=0), 0, atol=1e-5)
    changed = x.copy()
    changed[~is_training] *= 10
    np.testing.assert_array_equal(
        FeatureSpace(changed, is_training).coordinates[is_training], FeatureSpace(x, is_training).coordinates[:40]
    )


def test_held_out_predictions_do_not_depend_on_the_images_own_label() -> None:
    x, y = features(60, 10)
    folds = stratified_group_folds(y, [str(number) for number in range(60)])
    assert folds is not None
    changed = y.copy()
    changed[folds == 0] = (changed[folds == 0] + 1) % 3
    first, second = (cross_validate(x, labels, folds, 3, is_balanced=False) for labels in (y, changed))
    assert first.c == second.c
    np.testing.assert_array_equal(first.logits[folds == 0], second.logits[folds == 0])
    assert (first.logits[folds == 1] != second.logits[folds == 1]).any()


def test_the_penalty_has_the_lowest_held_out_loss() -> None:
    x, y = features(90, 60)
    space = FeatureSpace(x, np.ones(len(x), dtype=bool))
    folds = stratified_group_folds(y, [str(number) for number in range(90)])
    assert folds is not None
    chosen = cross_validate(space.coordinates, y, folds, 3, is_balanced=False)
    losses = {}
    for c in C_PATH:
        logits = np.zeros((90, 3))
        for fold in range(5):
            weights, bias = fit(space.coordinates[folds != fold], y[folds != fold], c, 3, is_balanced=False)
            logits[folds == fold] = space.coordinates[folds == fold] @ weights.T + bias
        losses[c] = cross_entropy(logits, y, 1.0).mean()
    assert chosen.c == min(losses, key=lambda c: losses[c])
    assert chosen.c not in (C_PATH[0], C_PATH[-1])


def test_a_single_fold_leaves_the_fit_with_its_penalty() -> None:
    x, y = features(90, 60)
    x = FeatureSpace(x, np.ones(len(x), dtype=bool)).coordinates
    is_training = np.arange(90) < 60
    chosen = cross_validate(x, y, np.where(is_training, ALWAYS_TRAINING, 0), 3, is_balanced=True)
    assert chosen.only_fit is not None
    for fitted, expected in zip(chosen.only_fit, fit(x[is_training], y[is_training], chosen.c, 3, True), strict=True):
        assert np.array_equal(fitted, expected)
    folds = stratified_group_folds(y, [str(number) for number in range(90)])
    assert folds is not None
    assert cross_validate(x, y, folds, 3, is_balanced=True).only_fit is None


def test_images_that_are_never_held_out_have_no_prediction() -> None:
    x, y = features(60, 10)
    folds = stratified_group_folds(y, [str(number) for number in range(60)])
    assert folds is not None
    folds[:3] = ALWAYS_TRAINING
    logits = cross_validate(x, y, folds, 3, is_balanced=False).logits
    assert np.isnan(logits[:3]).all()
    assert np.isfinite(logits[3:]).all()
    assert np.isfinite(oof_metrics(logits, y)["oof_loss"])


def test_a_class_without_training_images_is_never_predicted() -> None:
    x, y = features(60, 10)
    weights, bias = fit(x[y != 1], y[y != 1], 1.0, 3, is_balanced=True)
    assert (weights[1] == 0).all()
    assert bias[1] == LOGIT_OF_ABSENT_CLASS


def test_class_weights_raise_the_recall_of_a_rare_class() -> None:
    rng = np.random.default_rng(1)
    y = np.repeat([0, 1], [190, 10])
    x = (rng.normal(size=(200, 5)) + 0.7 * y[:, None]).astype(np.float32)
    recalls = []
    for is_balanced in (False, True):
        weights, bias = fit(x, y, 1.0, 2, is_balanced)
        recalls.append(((x @ weights.T + bias).argmax(axis=1) == y)[y == 1].mean())
    assert recalls[1] > recalls[0] + 0.3


def test_the_classifier_predicts_what_the_probe_reports(
    make_classifier: MakeClassifier, make_batches: MakeBatches
) -> None:
    classifier, train, val = make_classifier(1.0), make_batches(48, training=True), make_batches(24, seed=1)
    folds = stratified_group_folds(np.concatenate([train.labels, val.labels]), [str(number) for number in range(72)])
    probe = fit_probe(classifier, train, val, folds)
    probabilities, _ = predict(classifier, val.epoch(1))
    np.testing.assert_allclose(
        np.log(probabilities), torch.from_numpy(probe.val_logits).log_softmax(dim=1).numpy(), atol=1e-3
    )
    assert probe.result.val.accuracy > 0.6
    assert "lr" not in probe.result.metrics()
    assert probe.oof_logits is not None
    assert probe.oof_logits.shape == (72, len(CLASSES))
    assert probe.refitted is not None
    set_head(classifier, probe.refitted)
    refitted, _ = predict(classifier, val.epoch(1))
    assert (refitted.argmax(axis=1) == val.labels).mean() >= probe.result.val.accuracy  # it has seen these images


def test_without_folds_the_validation_images_choose_the_penalty(
    make_classifier: MakeClassifier, make_batches: MakeBatches
) -> None:
    probe = fit_probe(make_classifier(1.0), make_batches(48, training=True), make_batches(24, seed=1), None)
    assert probe.oof_logits is None
    assert probe.refitted is None
    assert probe.result.val.accuracy > 0.6
