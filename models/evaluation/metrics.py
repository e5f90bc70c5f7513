"""How good a classifier is: probabilities, scores and their uncertainty.

Scores are made of numpy, because they are computed after every epoch in processes that should start fast; the
tests hold the numbers against scikit-learn's. Shapes: n pictures, k classes.
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
Metric = Literal["accuracy", "balanced_accuracy", "macro_f1", "top5_accuracy"]

TOP_K = 5


class ClassMetrics(FrozenModel):
    """Precision, recall and F1 of one class; a ratio without anything to count is 0, as in scikit-learn."""

    name: str
    precision: float
    recall: float
    f1: float
    support: NonNegativeInt


class ClassificationMetrics(FrozenModel):
    """What a classifier's probabilities are worth on labelled pictures.

    Attributes:
        loss: mean cross-entropy (natural logarithm), without label smoothing.
        accuracy: share of pictures whose most probable class is right.
        balanced_accuracy: mean recall of the classes that occur.
        macro_f1: mean F1 of the classes that occur or are predicted.
        top5_accuracy: share of pictures whose class is among the five most probable; None up to five classes.
        per_class: in the order of the classes.
        confusion: pictures of class row predicted as class column.
    """

    loss: float
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    top5_accuracy: float | None
    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]

    def to_dict(self, split: str) -> dict[str, float]:
        """Return the numbers by their names in MLflow: ``val_loss``, ``val_accuracy``, ..."""
        names = ("loss", "accuracy", "balanced_accuracy", "macro_f1", "top5_accuracy")
        values = {f"{split}_{name}": getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}


def compute_metrics(
    probabilities: Probabilities, labels: Labels, class_names: Sequence[str] = ()
) -> ClassificationMetrics:
    """Return the scores of probabilities [n, k] on labels [n]; without names the classes are called by number."""
    count = probabilities.shape[1]
    names = list(class_names) or [str(index) for index in range(count)]
    confusion = confusion_matrix(probabilities.argmax(axis=1), labels, count)
    right = np.maximum(probabilities[np.arange(len(labels)), labels], np.finfo(np.float64).tiny)
    precision, recall, f1 = _per_class(confusion)
    return ClassificationMetrics(
        loss=float(-np.log(right).mean()),
        accuracy=float(np.trace(confusion) / len(labels)),
        balanced_accuracy=float(balanced_accuracy(confusion)),
        macro_f1=float(macro_f1(confusion)),
        top5_accuracy=_top_accuracy(probabilities, labels) if count > TOP_K else None,
        per_class=tuple(
            ClassMetrics(name=name, precision=p, recall=r, f1=f, support=int(support))
            for name, p, r, f, support in zip(names, precision, recall, f1, confusion.sum(axis=1), strict=True)
        ),
        confusion=tuple(tuple(int(value) for value in row) for row in confusion),
    )


def confusion_matrix(predicted: Labels, labels: Labels, classes: int) -> Counts:
    """Return int64 [k, k]: how many pictures of class row were predicted as class column."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def balanced_accuracy(confusion: Counts) -> Floats:
    """Return the mean recall of the classes that occur, of confusion matrices [..., k, k]."""
    support = confusion.sum(axis=-1)
    recall = _ratio(_diagonal(confusion), support)
    return np.asarray(recall.sum(axis=-1) / (support > 0).sum(axis=-1))


def macro_f1(confusion: Counts) -> Floats:
    """Return the mean F1 of the classes that occur or are predicted, of confusion matrices [..., k, k]."""
    known = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    return np.asarray(_ratio(2 * _diagonal(confusion), known).sum(axis=-1) / (known > 0).sum(axis=-1))


def _top_accuracy(probabilities: Probabilities, labels: Labels) -> float:
    right = probabilities[np.arange(len(labels)), labels]
    return float(((probabilities > right[:, None]).sum(axis=1) < TOP_K).mean())


def _per_class(confusion: Counts) -> tuple[list[float], list[float], list[float]]:
    """Return each class's precision, recall and F1."""
    right, support, predicted = _diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    ratios = (_ratio(right, predicted), _ratio(right, support), _ratio(2 * right, support + predicted))
    precision, recall, f1 = ([float(value) for value in ratio] for ratio in ratios)
    return precision, recall, f1


def _diagonal(confusion: Counts) -> Counts:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def _ratio(part: Counts, whole: Counts) -> Floats:
    return np.asarray(part / np.maximum(whole, 1))
