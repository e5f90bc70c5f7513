"""Metrics of one model, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from models.evaluation.metrics import ClassificationMetrics

MAX_CONFUSION_CLASSES = 12  # classes of a confusion matrix that fits a terminal
MAX_ROWS = 20


def class_table(scores: ClassificationMetrics) -> Table:
    """Return a row per class: number of images, precision, recall and F1."""
    table = Table("class", title="Metrics by class", title_justify="left", title_style="bold")
    for name in ("images", "precision", "recall", "F1"):
        table.add_column(name, justify="right")
    for row in scores.per_class:
        table.add_row(row.name, str(row.support), f"{row.precision:.3f}", f"{row.recall:.3f}", f"{row.f1:.3f}")
    return table


def confusion_table(scores: ClassificationMetrics) -> Table:
    """Return the confusion matrix; with many classes, the most frequent confusions."""
    if len(scores.per_class) > MAX_CONFUSION_CLASSES:
        return _confusions(scores)
    title = "Confusion matrix (columns: predicted class)"
    table = Table("true class", title=title, title_justify="left", title_style="bold")
    for row in scores.per_class:
        table.add_column(row.name, justify="right")
    for row, counts in zip(scores.per_class, scores.confusion, strict=True):
        table.add_row(row.name, *(str(count) if count else "." for count in counts))
    return table


def _confusions(scores: ClassificationMetrics) -> Table:
    """Return the pairs of true and predicted class that are confused most often."""
    names = [row.name for row in scores.per_class]
    pairs = [
        (count, true_label, predicted_label)
        for true_label, counts in enumerate(scores.confusion)
        for predicted_label, count in enumerate(counts)
        if count and true_label != predicted_label
    ]
    title = "Most frequent confusions"
    table = Table("true class", "predicted class", title=title, title_justify="left", title_style="bold")
    table.add_column("images", justify="right")
    for count, true_label, predicted_label in sorted(pairs, reverse=True)[:MAX_ROWS]:
        table.add_row(names[true_label], names[predicted_label], str(count))
    return table


def score_lines(scores: ClassificationMetrics, intervals: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return a line per metric, with its 95% confidence interval if there is one."""
    lines = []
    for metric, value in scores.to_dict().items():
        ci = f"  (95% CI {intervals[metric][0]:.4f} to {intervals[metric][1]:.4f})" if metric in intervals else ""
        lines.append(f"{metric:18} {value:.4f}{ci}")
    return lines
