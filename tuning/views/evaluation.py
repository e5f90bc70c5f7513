"""Scores of one model, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from models.evaluate import Scores


def class_table(scores: Scores) -> Table:
    """Return a row for each class: how many pictures, precision, recall and F1."""
    table = Table("class", title="By class", title_justify="left", title_style="bold")
    for name in ("pictures", "precision", "recall", "F1"):
        table.add_column(name, justify="right")
    for row in scores.per_class:
        table.add_row(row.name, str(row.support), f"{row.precision:.3f}", f"{row.recall:.3f}", f"{row.f1:.3f}")
    return table


def score_lines(scores: Scores, intervals: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return a line for each score, with its 95 % interval where there is one."""
    lines = []
    for name, value in scores.metrics("").items():
        metric = name.removeprefix("_")
        span = f"  (95 %: {intervals[metric][0]:.4f} to {intervals[metric][1]:.4f})" if metric in intervals else ""
        lines.append(f"{metric:18} {value:.4f}{span}")
    return lines
