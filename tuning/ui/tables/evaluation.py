"""Metrics of one model, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from models.evaluation.metrics import ClassificationMetrics
from tuning.ui.tables.text_table import TextTable

MAX_CONFUSION_CLASSES = 12  # classes of a confusion matrix that fits a terminal
MAX_ROWS = 20
CLASS, TRUE_CLASS, PREDICTED_CLASS = "class", "true class", "predicted class"


def class_table(scores: ClassificationMetrics) -> TextTable:
    """Return a row per class: number of images, precision, recall and F1."""
    rows = [
        [row.name, str(row.support), f"{row.precision:.4f}", f"{row.recall:.4f}", f"{row.f1:.4f}"]
        for row in scores.per_class
    ]
    return TextTable(
        "Metrics by class", (CLASS, "images", "precision", "recall", "F1"), rows, text_columns={CLASS}, wrapped={CLASS}
    )


def confusion_table(scores: ClassificationMetrics) -> TextTable:
    """Return the confusion matrix; with many classes, the most frequent confusions.

    The columns are numbered as the rows, because names of classes would not fit above numbers.
    """
    if len(scores.per_class) > MAX_CONFUSION_CLASSES:
        return _confusions(scores)
    numbers = [str(number) for number, _ in enumerate(scores.per_class, start=1)]
    rows = [
        [number, row.name, *(str(count) if count else "." for count in counts)]
        for number, row, counts in zip(numbers, scores.per_class, scores.confusion, strict=True)
    ]
    title = "Confusion matrix (columns: predicted)"
    return TextTable(title, ("", TRUE_CLASS, *numbers), rows, text_columns={TRUE_CLASS}, wrapped={TRUE_CLASS})


def _confusions(scores: ClassificationMetrics) -> TextTable:
    """Return the pairs of true and predicted class that are confused most often."""
    names = [row.name for row in scores.per_class]
    pairs = [
        (count, true_label, predicted_label)
        for true_label, counts in enumerate(scores.confusion)
        for predicted_label, count in enumerate(counts)
        if count and true_label != predicted_label
    ]
    rows = [
        [names[true_label], names[predicted_label], str(count)]
        for count, true_label, predicted_label in sorted(pairs, reverse=True)[:MAX_ROWS]
    ]
    columns = {TRUE_CLASS, PREDICTED_CLASS}
    return TextTable(
        "Most frequent confusions",
        (TRUE_CLASS, PREDICTED_CLASS, "images"),
        rows,
        text_columns=columns,
        wrapped=columns,
    )


def score_lines(scores: ClassificationMetrics, intervals: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return a line per metric, with its 95% confidence interval if there is one."""
    lines = []
    for metric, value in scores.to_dict().items():
        ci = f"  [95% CI {intervals[metric][0]:.4f}, {intervals[metric][1]:.4f}]" if metric in intervals else ""
        lines.append(f"{metric:18} {value:.4f}{ci}")
    return lines
