"""How good a classifier is: probabilities, scores and their uncertainty.

Scores are made of numpy, because they are computed after every epoch in processes that should start fast; the
tests hold the numbers against scikit-learn's. Shapes: n pictures, k classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import NonNegativeInt
from torch import Tensor

from data.values import Value
from models.classifier import Classifier
from models.depthwise import FastDepthwise
from models.device import autocast, keep_freed_memory, to_device

Probabilities = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Metric = Literal["accuracy", "balanced_accuracy", "macro_f1", "top5_accuracy"]

TOP = 5
Z_95 = 1.959963984540054  # of the normal distribution: 95 % lie within this many standard deviations
RESAMPLES = 2000
BOOTSTRAP_SEED = 0  # fixed, so that the same predictions always give the same interval


class ClassScores(Value):
    """Precision, recall and F1 of one class; a ratio without anything to count is 0, as in scikit-learn."""

    name: str
    precision: float
    recall: float
    f1: float
    support: NonNegativeInt


class Scores(Value):
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
    per_class: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]

    def metrics(self, split: str) -> dict[str, float]:
        """Return the numbers by their names in MLflow: ``val_loss``, ``val_accuracy``, ..."""
        names = ("loss", "accuracy", "balanced_accuracy", "macro_f1", "top5_accuracy")
        values = {f"{split}_{name}": getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}


def run_pass(
    classifier: Classifier,
    batches: Iterable[tuple[Tensor, Tensor]],
    learn: Callable[[Tensor, Tensor], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return logits [n, k] float64 and labels [n] of batches ([b, 3, s, s], [b]), on the CPU.

    With ``learn`` the classifier is in training mode and ``learn(logits, labels)`` is called for every batch;
    without, it is in eval mode and keeps no graph. It is left in that mode.
    """
    keep_freed_memory()
    classifier.train(learn is not None)
    device = classifier.device
    found = []
    with torch.set_grad_enabled(learn is not None), FastDepthwise():
        for x, y in batches:
            labels = to_device(y, device)
            with autocast(device):
                logits = classifier(to_device(x, device)).float()
            if learn:
                learn(logits, labels)
            found.append((logits.detach(), labels))
    return torch.cat([x for x, _ in found]).double().cpu(), torch.cat([y for _, y in found]).cpu()


def predict(classifier: Classifier, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Probabilities, Labels]:
    """Return probabilities [n, k] and labels [n] of batches ([b, 3, s, s], [b]); the classifier is in eval mode then.

    The softmax is taken in float64, so that a loss made of it doesn't run into rounding.
    """
    logits, labels = run_pass(classifier, batches)
    return logits.softmax(dim=1).numpy(), labels.numpy().astype(np.int64)


def score(probabilities: Probabilities, labels: Labels, classes: Sequence[str] = ()) -> Scores:
    """Return the scores of probabilities [n, k] on labels [n]; without names the classes are called by number."""
    count = probabilities.shape[1]
    names = list(classes) or [str(index) for index in range(count)]
    confusion = confusion_matrix(probabilities.argmax(axis=1), labels, count)
    right = np.maximum(probabilities[np.arange(len(labels)), labels], np.finfo(np.float64).tiny)
    precision, recall, f1 = _per_class(confusion)
    return Scores(
        loss=float(-np.log(right).mean()),
        accuracy=float(np.trace(confusion) / len(labels)),
        balanced_accuracy=float(balanced_accuracy(confusion)),
        macro_f1=float(macro_f1(confusion)),
        top5_accuracy=_top_accuracy(probabilities, labels) if count > TOP else None,
        per_class=tuple(
            ClassScores(name=name, precision=p, recall=r, f1=f, support=int(support))
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


def interval(metric: Metric, probabilities: Probabilities, labels: Labels) -> tuple[float, float]:
    """Return the 95 % confidence interval of a metric on labels [n].

    Accuracies get Wilson's interval. Balanced accuracy and macro-F1 get the percentiles of a bootstrap that keeps
    every class's number of pictures, with a fixed seed.
    """
    count = probabilities.shape[1]
    if metric == "accuracy":
        return wilson(int((probabilities.argmax(axis=1) == labels).sum()), len(labels))
    if metric == "top5_accuracy":
        return wilson(round(_top_accuracy(probabilities, labels) * len(labels)), len(labels))
    confusion = confusion_matrix(probabilities.argmax(axis=1), labels, count)
    resampled = _resampled(confusion)
    values = balanced_accuracy(resampled) if metric == "balanced_accuracy" else macro_f1(resampled)
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def wilson(right: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval for ``right`` of ``total``."""
    share, z2 = right / total, Z_95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return max(0.0, centre - half), min(1.0, centre + half)


def _resampled(confusion: Counts) -> Counts:
    """Return [RESAMPLES, k, k]: drawing pictures of a class with replacement draws its row from a multinomial."""
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    support = confusion.sum(axis=1)
    drawn = np.zeros((RESAMPLES, *confusion.shape), dtype=np.int64)
    for row in np.flatnonzero(support):
        drawn[:, row] = rng.multinomial(support[row], confusion[row] / support[row], size=RESAMPLES)
    return drawn


def _top_accuracy(probabilities: Probabilities, labels: Labels) -> float:
    right = probabilities[np.arange(len(labels)), labels]
    return float(((probabilities > right[:, None]).sum(axis=1) < TOP).mean())


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
