"""Classification metrics.

They are computed with numpy, because they run after every epoch in worker processes that must start fast; the tests
compare them with scikit-learn. Shapes: n images, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import NonNegativeInt

from data.frozen_model import FrozenModel

Probabilities = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
MetricName = Literal["accuracy", "balanced_accuracy", "macro_f1"]  # those with confidence intervals

TOP_K = 5


class ClassMetrics(FrozenModel):
    """Precision, recall and F1 of one class; a ratio with a zero denominator is 0, as in scikit-learn."""

    name: str
    precision: float
    recall: float
    f1: float
    support: NonNegativeInt


class ClassificationMetrics(FrozenModel):
    """Metrics of predicted probabilities on labeled images.

    Attributes:
        loss: mean cross-entropy (natural logarithm), without label smoothing.
        accuracy: share of the images whose most probable class is correct.
        balanced_accuracy: mean recall of the classes that occur.
        macro_f1: mean F1 of the classes that occur or are predicted.
        top5_accuracy: share of the images whose class is among the five most probable; None with up to five classes.
        per_class: in the order of the classes.
        confusion: number of images by true class (row) and predicted class (column).
    """

    loss: float
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    top5_accuracy: float | None
    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]

    def to_dict(self, prefix: str = "") -> dict[str, float]:
        """Return the values by name; ``prefix="val_"`` gives MLflow's metric names: ``val_loss``, ``val_accuracy``."""
        names = ("loss", "accuracy", "balanced_accuracy", "macro_f1", "top5_accuracy")
        values = {prefix + name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}


def compute_metrics(
    probabilities: Probabilities, labels: Labels, class_names: Sequence[str] = ()
) -> ClassificationMetrics:
    """Return the metrics of probabilities [n, k] on labels [n]; without names, classes are named by their index."""
    num_classes = probabilities.shape[1]
    names = list(class_names) or [str(index) for index in range(num_classes)]
    confusion = confusion_matrix(probabilities.argmax(axis=1), labels, num_classes)
    true_class = np.maximum(probabilities[np.arange(len(labels)), labels], np.finfo(np.float64).tiny)
    precision, recall, f1 = _per_class(confusion)
    return ClassificationMetrics(
        loss=float(-np.log(true_class).mean()),
        accuracy=float(np.trace(confusion) / len(labels)),
        balanced_accuracy=float(balanced_accuracy(confusion)),
        macro_f1=float(macro_f1(confusion)),
        top5_accuracy=top_k_accuracy(probabilities, labels) if num_classes > TOP_K else None,
        per_class=tuple(
            ClassMetrics(name=name, precision=p, recall=r, f1=f, support=int(support))
            for name, p, r, f, support in zip(names, precision, recall, f1, confusion.sum(axis=1), strict=True)
        ),
        confusion=tuple(tuple(int(value) for value in row) for row in confusion),
    )


def confusion_matrix(predicted: Labels, labels: Labels, num_classes: int) -> Counts:
    """Return int64 [k, k]: the number of images by true class (row) and predicted class (column)."""
    return np.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def balanced_accuracy(confusion: Counts) -> Floats:
    """Return the mean recall of the classes that occur, for confusion matrices [..., k, k]."""
    support = confusion.sum(axis=-1)
    recall = _ratio(_diagonal(confusion), support)
    return np.asarray(recall.sum(axis=-1) / (support > 0).sum(axis=-1))


def macro_f1(confusion: Counts) -> Floats:
    """Return the mean F1 of the classes that occur or are predicted, for confusion matrices [..., k, k]."""
    totals = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    return np.asarray(_ratio(2 * _diagonal(confusion), totals).sum(axis=-1) / (totals > 0).sum(axis=-1))


def top_k_accuracy(probabilities: Probabilities, labels: Labels) -> float:
    """Return the share of the images whose class is among the ``TOP_K`` most probable."""
    true_class = probabilities[np.arange(len(labels)), labels]
    return float(((probabilities > true_class[:, None]).sum(axis=1) < TOP_K).mean())


def _per_class(confusion: Counts) -> tuple[list[float], list[float], list[float]]:
    """Return the precision, recall and F1 of each class."""
    correct, support, predicted = _diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    ratios = (_ratio(correct, predicted), _ratio(correct, support), _ratio(2 * correct, support + predicted))
    precision, recall, f1 = ([float(value) for value in ratio] for ratio in ratios)
    return precision, recall, f1


def _diagonal(confusion: Counts) -> Counts:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def _ratio(numerator: Counts, denominator: Counts) -> Floats:
    return np.asarray(numerator / np.maximum(denominator, 1))
