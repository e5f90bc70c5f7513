"""The charts of the predictions on the test images: confidence, and for two classes the ROC and PR curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from data.text import pluralize
from tuning.reporting.content import EvaluatedWinner
from tuning.reporting.drawing import draw_legend, new_figure, new_grid, percent_axis
from tuning.reporting.theme import BLUE, FIGURE_SIZE, MUTED, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POSITIVE = 1  # the second of two classes is the positive one, as in scikit-learn
BINS_PER_UNIT = 20  # of the histogram: 5 points wide


def draw_confidence(winner: EvaluatedWinner) -> Figure:
    """Draw histograms of the predicted class's probability, of the correct images and, below, of the wrong ones."""
    groups = [(name, values) for name, values in _confidence(winner).items() if len(values)]
    figure, grid = new_grid(len(groups), 1, (FIGURE_SIZE[0], 1.0 + 1.1 * len(groups)))
    first = int(BINS_PER_UNIT * min(values.min() for _, values in groups))
    bins = np.arange(first, BINS_PER_UNIT + 1) / BINS_PER_UNIT
    for (axes,), (name, values) in zip(grid, groups, strict=True):
        axes.hist(np.clip(values, bins[0], 1), bins=bins, color=BLUE if name == "correct" else ORANGE, rwidth=0.9)
        axes.set(ylabel=f"{name} images", xlim=(bins[0], 1))
        axes.locator_params(axis="y", integer=True, nbins=4)
        percent_axis(axes.xaxis)
        axes.grid(visible=False, axis="x")
    grid[-1][0].set(xlabel="probability of the predicted class")
    return figure


def caption_confidence(winner: EvaluatedWinner) -> str:
    """Return the number and the median confidence of correct and wrong images."""
    texts = [
        f"{pluralize(len(values), f'{name} image')}, median {np.median(values):.1%}"
        for name, values in _confidence(winner).items()
        if len(values)
    ]
    note = " The two have different scales." if len(texts) > 1 else ""
    return f"Test images by the probability of the predicted class. {'; '.join(texts)}.{note}"


def _confidence(winner: EvaluatedWinner) -> dict[str, np.ndarray]:
    confidence = winner.probabilities.max(axis=1)
    is_correct = winner.probabilities.argmax(axis=1) == winner.labels
    return {"correct": confidence[is_correct], "wrong": confidence[~is_correct]}


def has_curves(winner: EvaluatedWinner) -> bool:
    """Whether there are two classes, both with test images."""
    return len(winner.candidate.classes) == 2 == len(set(winner.labels.tolist()))


def draw_roc(winner: EvaluatedWinner) -> Figure:
    """Draw the true against the false positive rate for all thresholds (ROC curve)."""
    from sklearn.metrics import roc_curve

    is_positive, probability = _positives(winner)
    false_rates, true_rates, _ = roc_curve(is_positive, probability)
    figure, axes = new_figure()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--", label="chance")
    axes.plot(false_rates, true_rates, color=BLUE, label="model")
    is_predicted = winner.probabilities.argmax(axis=1) == POSITIVE
    decision = float(is_predicted[~is_positive].mean()), float(is_predicted[is_positive].mean())
    _finish(axes, decision, ("false positive rate", "true positive rate (recall)"))
    return figure


def caption_roc(winner: EvaluatedWinner) -> str:
    """Return the area under the curve and the positive class."""
    from sklearn.metrics import roc_auc_score

    return f"Area under the curve (ROC AUC): {roc_auc_score(*_positives(winner)):.1%}. {_reading(winner)}"


def draw_precision_recall(winner: EvaluatedWinner) -> Figure:
    """Draw precision against recall for all thresholds."""
    from sklearn.metrics import precision_recall_curve

    is_positive, probability = _positives(winner)
    precisions, recalls, _ = precision_recall_curve(is_positive, probability)
    figure, axes = new_figure()
    axes.axhline(is_positive.mean(), color=MUTED, linewidth=1, linestyle="--", label="chance")
    axes.plot(recalls, precisions, color=BLUE, drawstyle="steps-post", label="model")
    is_predicted = winner.probabilities.argmax(axis=1) == POSITIVE
    precision = float(is_positive[is_predicted].mean()) if is_predicted.any() else 1.0
    _finish(axes, (float(is_predicted[is_positive].mean()), precision), ("recall", "precision"))
    return figure


def caption_precision_recall(winner: EvaluatedWinner) -> str:
    """Return the average precision and the positive class."""
    from sklearn.metrics import average_precision_score

    return f"Average precision (AP): {average_precision_score(*_positives(winner)):.1%}. {_reading(winner)}"


def _positives(winner: EvaluatedWinner) -> tuple[np.ndarray, np.ndarray]:
    """Return whether each test image is of the positive class, and the probability of that class."""
    return winner.labels == POSITIVE, winner.probabilities[:, POSITIVE]


def _reading(winner: EvaluatedWinner) -> str:
    is_positive, _ = _positives(winner)
    return (
        f"Positive class: {winner.candidate.classes[POSITIVE]}, {is_positive.sum():,} of "
        f"{pluralize(len(is_positive), 'test image')}. The point is the model's own decision, at a probability of 50%."
    )


def _finish(axes: Axes, decision: tuple[float, float], labels: tuple[str, str]) -> None:
    """Mark the model's own decision, and label the axes."""
    axes.plot(*decision, color=ORANGE, marker="D", linestyle="none", label="at 50%", zorder=3, clip_on=False)
    axes.set(xlabel=labels[0], ylabel=labels[1], xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    draw_legend(axes, *axes.get_legend_handles_labels())
