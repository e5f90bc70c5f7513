"""The charts of a model's quality: confusion matrix, reliability diagram, accuracy against cost, class balance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from models.evaluation.metrics import ClassificationMetrics
from tuning.common.formatting import describe_network
from tuning.reporting.content import ReportContent
from tuning.reporting.drawing import SCORE, draw_legend, mark_winner, new_figure, percent_axis, shorten
from tuning.reporting.summary import ConfusedPair
from tuning.reporting.theme import BLUE, FIGURE_SIZE, GREEN, INK, MUTED, ORANGE, RED
from tuning.search.selection import COST_FORMATS, CostMetric, pareto_front

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COST_LABELS: dict[CostMetric, str] = {"latency_ms": "latency per image on one core, ms", "mb": "size, MB"}
MAX_ANNOTATED_CLASSES = 12  # up to this number, the cells of a confusion matrix have numbers
MAX_SHARES = 6  # up to this number of classes, they also have percentages
MAX_NAMED_CLASSES = 40  # up to this number, axes have class names
MAX_NAME_LENGTH = 18  # characters of a class name at an axis
MAX_UPRIGHT_CHARACTERS = 48  # of all names, each as long as the longest, for horizontal labels under a matrix
SMALL = 7.5  # font size of the class names of a large matrix
MAX_CAPTIONED_NETWORKS = 4  # of the Pareto front
MIN_OPACITY, MAX_OPACITY = 0.15, 0.5  # of a cell; at most, so that its number is legible in light and dark mode


def draw_confusion(scores: ClassificationMetrics) -> Figure:
    """Draw the confusion matrix with colors by the share of the true class, errors in another color."""
    counts = np.array(scores.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    num_classes = len(counts)
    width = min(2.0 + 0.5 * num_classes, FIGURE_SIZE[0] * (1.0 if num_classes <= MAX_ANNOTATED_CLASSES else 1.3))
    figure, axes = new_figure((width, width * 0.9))
    for row, column in zip(*np.nonzero(counts), strict=True):
        _draw_cell(axes, int(row), int(column), float(shares[row, column]))
        if num_classes <= MAX_ANNOTATED_CLASSES:
            share = f"\n{shares[row, column]:.0%}" if num_classes <= MAX_SHARES else ""
            axes.text(column, row, f"{counts[row, column]}{share}", ha="center", va="center", color=INK)
    axes.set(xlim=(-0.5, num_classes - 0.5), ylim=(num_classes - 0.5, -0.5), aspect="equal")
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.grid(visible=False)
    if num_classes <= MAX_NAMED_CLASSES:
        _name_classes(axes, [shorten(row.name, MAX_NAME_LENGTH) for row in scores.per_class])
    return figure


def draw_confused_pairs(pairs: Sequence[ConfusedPair]) -> Figure:
    """Draw the number of images of each pair of a true and a predicted class as a bar."""
    figure, axes = new_figure((FIGURE_SIZE[0], 1.2 + 0.3 * len(pairs)))
    rows = range(len(pairs))
    axes.barh(rows, [pair.num_images for pair in pairs], color=ORANGE, height=0.7)
    for row, pair in enumerate(pairs):
        place = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "size": SMALL}
        axes.annotate(f"{pair.share:.0%} of its class", (pair.num_images, row), **place)
    names = [[shorten(name, MAX_NAME_LENGTH) for name in (pair.true_label, pair.predicted_label)] for pair in pairs]
    axes.set_yticks(rows, [f"{true} as {predicted}" for true, predicted in names])
    axes.set(xlabel="images", ylim=(len(pairs) - 0.5, -0.5))
    axes.grid(visible=False)
    axes.margins(x=0.2)
    axes.locator_params(axis="x", integer=True)
    return figure


def _draw_cell(axes: Axes, row: int, column: int, share: float) -> None:
    from matplotlib.patches import Rectangle

    opacity = MIN_OPACITY + (MAX_OPACITY - MIN_OPACITY) * share
    color = BLUE if row == column else ORANGE
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=color, alpha=opacity, linewidth=0))


def _name_classes(axes: Axes, names: Sequence[str]) -> None:
    rows = range(len(names))
    if len(names) > MAX_ANNOTATED_CLASSES:
        axes.set_yticks(rows, names, size=SMALL)
        axes.set_xticks(rows, names, size=SMALL, rotation=90)
        return
    axes.set_yticks(rows, names)
    if max(map(len, names)) * len(names) <= MAX_UPRIGHT_CHARACTERS:
        axes.set_xticks(rows, names)
    else:
        axes.set_xticks(rows, names, rotation=40, ha="right", rotation_mode="anchor")


def caption_reliability(content: ReportContent) -> str:
    """Return how to read the diagram, and the calibration errors."""
    metrics, temperature = content.candidate.metrics, content.candidate.temperature
    before, after = metrics["test_ece"], metrics["test_ece_calibrated"]
    action = f"was divided by the temperature {temperature:.2f}" if temperature != 1 else "was not changed"
    return (
        "A point is above the diagonal where the network is too cautious, below where it is too certain; larger points "
        "have more images. "
        f"Its output {action}: expected calibration error on test {before:.1%} before, {after:.1%} after."
    )


def draw_reliability(content: ReportContent) -> Figure:
    """Draw accuracy by predicted probability, before and after calibration."""
    figure, axes = new_figure()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--", label="perfectly calibrated")
    styles = {"before calibration": (MUTED, "s"), "after": (BLUE, "o")}
    for (label, (color, marker)), bins in zip(styles.items(), content.reliability, strict=True):
        points = [(each.mean_confidence, each.accuracy) for each in bins]
        sizes = [10 + 90 * each.num_images / content.candidate.num_test_images for each in bins]
        axes.scatter(*zip(*points, strict=True), s=sizes, color=color, marker=marker, label=label, alpha=0.8, zorder=2)
    axes.set(xlabel="mean probability of the predicted class", ylabel="accuracy", xlim=(0, 1.03), ylim=(-0.03, 1.03))
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    draw_legend(axes, *axes.get_legend_handles_labels())
    return figure


def caption_cost(content: ReportContent, metric: CostMetric) -> str:
    """Return the networks on the Pareto front."""
    networks = "; ".join(
        f"{describe_network(costed.trial)}: {costed.trial.score or 0.0:.1%} at "
        f"{COST_FORMATS[metric].format(getattr(costed.cost, metric))}"
        for costed in pareto_front(content.result.costed_trials, metric)[:MAX_CAPTIONED_NETWORKS]
    )
    return f"The line is the Pareto front; each network has the number of its best trial. {networks}."


def draw_cost(content: ReportContent, metric: CostMetric) -> Figure:
    """Draw the score of each network against one of its costs, with the Pareto front."""
    figure, axes = new_figure()
    costed_trials = content.result.costed_trials
    front = pareto_front(costed_trials, metric)
    points = [(getattr(costed.cost, metric), costed.trial.score) for costed in costed_trials]
    axes.scatter(*zip(*points, strict=True), s=24, color=BLUE, label="network", zorder=2)
    for costed, (x, y) in zip(costed_trials, points, strict=True):
        axes.annotate(str(costed.trial.number), (x, y or 0.0), xytext=(6, 4), textcoords="offset points", size=8.5)
    steps = [(getattr(costed.cost, metric), costed.trial.score) for costed in reversed(front)]
    front_style = {"color": ORANGE, "drawstyle": "steps-post", "linewidth": 1.5, "zorder": 1}
    axes.plot(*zip(*steps, strict=True), label="Pareto front", **front_style)
    limit = content.result.limits.get(metric)
    if limit is not None:
        axes.axvline(limit, color=RED, linestyle="--", linewidth=1.2, label=f"limit {limit:g}")
    if content.result.winner_cost is not None:
        mark_winner(axes, getattr(content.result.winner_cost, metric), content.result.winner.score or 0.0)
    axes.set(xlabel=COST_LABELS[metric], ylabel=SCORE)
    axes.margins(x=0.12, y=0.1)
    axes.set_ylim(top=min(axes.get_ylim()[1], 1.0))
    percent_axis(axes.yaxis)
    draw_legend(axes, *axes.get_legend_handles_labels())
    return figure


def draw_class_balance(counts: Mapping[str, Mapping[str, int]], classes: Sequence[str]) -> Figure:
    """Draw the number of images of each class as a bar, stacked by split."""
    figure, axes = new_figure((FIGURE_SIZE[0], min(1.2 + 0.3 * len(classes), 3 * FIGURE_SIZE[1])))
    start = np.zeros(len(classes))
    rows = range(len(classes))
    for (split, by_class), color in zip(counts.items(), (BLUE, ORANGE, GREEN), strict=False):
        sizes = np.array([by_class.get(name, 0) for name in classes])
        axes.barh(rows, sizes, left=start, color=color, label=split, height=0.7)
        start += sizes
    for row, total in zip(rows, start, strict=True):
        axes.annotate(f"{total:.0f}", (total, row), xytext=(4, 0), textcoords="offset points", va="center", size=8.5)
    axes.set_yticks(rows, [shorten(name, MAX_NAME_LENGTH) for name in classes])
    axes.set(xlabel="images", ylim=(len(classes) - 0.5, -0.5))
    axes.grid(visible=False)
    axes.margins(x=0.12)
    axes.locator_params(axis="x", integer=True)
    draw_legend(axes, *axes.get_legend_handles_labels())
    return figure
