"""Scores of one model, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from models.evaluation.metrics import ClassificationMetrics

MOST_COLUMNS = 12  # classes of a confusion matrix that a terminal has room for
MOST_ROWS = 20


def class_table(scores: ClassificationMetrics) -> Table:
    """Return a row for each class: how many pictures, precision, recall and F1."""
    table = Table("class", title="By class", title_justify="left", title_style="bold")
    for name in ("pictures", "precision", "recall", "F1"):
        table.add_column(name, justify="right")
    for row in scores.per_class:
        table.add_row(row.name, str(row.support), f"{row.precision:.3f}", f"{row.recall:.3f}", f"{row.f1:.3f}")
    return table


def confusion_table(scores: ClassificationMetrics) -> Table:
    """Return how many pictures of each class (row) were taken for each class (column); of many, the usual mistakes."""
    if len(scores.per_class) > MOST_COLUMNS:
        return _mistakes(scores)
    table = Table("class", title="Taken for", title_justify="left", title_style="bold")
    for row in scores.per_class:
        table.add_column(row.name, justify="right")
    for row, counts in zip(scores.per_class, scores.confusion, strict=True):
        table.add_row(row.name, *(str(count) if count else "." for count in counts))
    return table


def _mistakes(scores: ClassificationMetrics) -> Table:
    """Return the pairs of classes that are taken for one another most often."""
    names = [row.name for row in scores.per_class]
    pairs = [
        (count, truth, answer)
        for truth, counts in enumerate(scores.confusion)
        for answer, count in enumerate(counts)
        if count and truth != answer
    ]
    table = Table("class", "taken for", title="Most frequent mistakes", title_justify="left", title_style="bold")
    table.add_column("pictures", justify="right")
    for count, truth, answer in sorted(pairs, reverse=True)[:MOST_ROWS]:
        table.add_row(names[truth], names[answer], str(count))
    return table


def score_lines(scores: ClassificationMetrics, intervals: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return a line for each score, with its 95 % interval where there is one."""
    lines = []
    for name, value in scores.to_dict("").items():
        metric = name.removeprefix("_")
        span = f"  (95 %: {intervals[metric][0]:.4f} to {intervals[metric][1]:.4f})" if metric in intervals else ""
        lines.append(f"{metric:18} {value:.4f}{span}")
    return lines
