"""A linear probe: logistic regression on the features of a frozen network, instead of training by gradient steps.

One fit takes seconds, so the penalty is chosen by cross-validation, and each image gets a prediction of a fit that
did not see it ("out of fold"). Standardization of the features is folded into the head's linear layer.

Shapes: n images, f features, k classes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from data.dataset.folds import ALWAYS_TRAINING, Folds
from data.loading.batch_loader import BatchLoader
from models.classifier import Classifier
from models.device import autocast
from models.evaluation.calibration import cross_entropy, softmax
from models.evaluation.estimate import class_balanced_mean
from models.evaluation.metrics import Floats, Labels, balanced_accuracy, compute_metrics, confusion_matrix
from models.training.checkpoint import EpochResult
from models.training.logistic_regression import (
    Features,
    FeatureSpace,
    LinearLayer,
    cross_validate,
    fit,
)

CHUNK_SIZE = 256  # images per pass through the rest of the network


@dataclass(frozen=True)
class ProbeResult:
    """A fitted probe; its weights are in the classifier.

    Attributes:
        result: the metrics on the training and validation images.
        c: the inverse penalty.
        val_logits: [n, k] of the validation images.
        oof_logits: [n, k] of the training images, followed by the validation images, each from a fit without it; NaN
            for images that are never held out. None without folds.
        refitted: the head fitted on the training and validation images; None without folds.
    """

    result: EpochResult
    c: float
    val_logits: Floats
    oof_logits: Floats | None
    refitted: LinearLayer | None


def fit_probe(classifier: Classifier, train: BatchLoader, val: BatchLoader, folds: Folds | None) -> ProbeResult:
    """Fit the head of a fully frozen classifier on the training images; the weights are set in place.

    ``folds`` are those of the training images, followed by the validation images. Without them, the validation images
    choose the penalty.
    """
    started = time.perf_counter()
    features = features_of(classifier, train, val)
    labels = np.concatenate([train.labels, val.labels])
    is_training = np.arange(len(labels)) < len(train.labels)
    space = FeatureSpace(features, is_training)
    x, num_classes, is_balanced = space.coordinates, train.num_classes, train.config.balance == "weights"
    split_as_fold = np.where(is_training, ALWAYS_TRAINING, 0)
    chosen = cross_validate(x, labels, split_as_fold if folds is None else folds, num_classes, is_balanced)
    if folds is None and chosen.only_fit is not None:
        fitted = chosen.only_fit
    else:
        fitted = fit(x[is_training], labels[is_training], chosen.c, num_classes, is_balanced)
    layer = space.to_linear_layer(*fitted)
    set_head(classifier, layer)
    train_logits, val_logits = layer.logits(features[is_training]), layer.logits(features[~is_training])
    seconds = time.perf_counter() - started
    result = EpochResult(
        epoch=1,
        train_loss=float(cross_entropy(train_logits, train.labels, 1.0).mean()),
        train_accuracy=float((train_logits.argmax(axis=1) == train.labels).mean()),
        val=compute_metrics(softmax(val_logits), val.labels),
        epoch_s=seconds,
        images_per_s=len(labels) / seconds,
    )
    if folds is None:
        return ProbeResult(result, chosen.c, val_logits, None, None)
    refitted = space.to_linear_layer(*fit(x, labels, chosen.c, num_classes, is_balanced))
    return ProbeResult(result, chosen.c, val_logits, chosen.logits, refitted)


def set_head(classifier: Classifier, layer: LinearLayer) -> None:
    """Set the weights of a linear head."""
    linear = _linear_layer(classifier)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(layer.weight))
        linear.bias.copy_(torch.from_numpy(layer.bias))


def oof_metrics(oof_logits: Floats, *labels_of_splits: Labels) -> dict[str, float]:
    """Return the metrics of out-of-fold logits [n, k] by name, given the labels of the two splits, in order."""
    is_scored = ~np.isnan(oof_logits[:, 0])
    logits, labels = oof_logits[is_scored], np.concatenate(labels_of_splits)[is_scored]
    confusion = confusion_matrix(logits.argmax(axis=1), labels, logits.shape[1])
    return {
        "oof_loss": class_balanced_mean(cross_entropy(logits, labels, 1.0), labels),
        "oof_balanced_accuracy": float(balanced_accuracy(confusion)),
    }


def _linear_layer(classifier: Classifier) -> nn.Linear:
    head = classifier.head
    if not (isinstance(head, nn.Sequential) and isinstance(head[-1], nn.Linear)):
        raise TypeError(f"a probe's head must end with a linear layer, got {type(head).__name__}")
    return head[-1]


@torch.no_grad()
def features_of(classifier: Classifier, *splits: BatchLoader) -> Features:
    """Return the input [n, f] of the head's linear layer for all images of the splits, in order."""
    classifier.eval()
    features: Features | None = None
    count, start = sum(len(batches.labels) for batches in splits), 0
    for batches in splits:
        for values in _feature_chunks(classifier, batches):
            if features is None:  # filled in place: with many images, a second copy would double the memory
                features = np.empty((count, values.shape[1]), dtype=np.float32)
            features[start : start + len(values)] = values
            start += len(values)
    assert features is not None  # noqa: S101  (a loader has at least one image)
    return features


def _feature_chunks(classifier: Classifier, batches: BatchLoader) -> Iterator[Features]:
    head = classifier.head
    assert isinstance(head, nn.Sequential)  # noqa: S101  (``build_head`` returns nothing else)
    before_linear = head[:-1]
    gather, all_rows = batches.source.epoch(0), batches.rows(0)
    for rows in np.array_split(all_rows, max(1, len(all_rows) // CHUNK_SIZE)):
        x: Tensor = gather(rows, np.zeros_like(rows)).to(classifier.device)
        with autocast(classifier.device, classifier.frozen_precision):
            if not classifier.expects_features:
                x = classifier.prefix(x)
            yield before_linear(classifier.suffix(x)).float().cpu().numpy()
