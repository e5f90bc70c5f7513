"""The charts of a report. Optuna and scikit-learn draw what they have a chart for; the rest is ours.

Each is drawn from the report's content alone. Matplotlib keeps the figures that Optuna makes until they are closed: who
draws closes (``render_figure``).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import matplotlib as mpl

from models.evaluation.metrics import ClassificationMetrics
from tuning.common.formatting import describe_network, format_score
from tuning.common.trial_record import TrialOrigin, TrialRecord
from tuning.reporting.content import ReportContent
from tuning.reporting.optuna_study import to_study
from tuning.reporting.theme import BLUE, GREEN, INK, MUTED, ORANGE, RED, SIZE, STYLE, restyle
from tuning.search.selection import CostMetric, pareto_front

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

mpl.use("Agg")  # no window, on no machine

SCORE = "validation balanced accuracy"
ORIGINS: dict[TrialOrigin, tuple[str, str, str]] = {  # its name, color and mark; told apart without the color
    "default": ("the default", ORANGE, "D"),
    "probe": ("linear probe", MUTED, "s"),
    "fine-tune": ("best probe fine-tuned", GREEN, "^"),
    "sampler": ("sampler", BLUE, "o"),
}
ENDS = {"pruned": ("x", MUTED), "failed": ("v", RED)}  # mark and color where a curve was cut off
COSTS: dict[CostMetric, str] = {"latency_ms": "ms for a picture, one core", "mb": "MB"}
MAX_IMPORTANCES = 10  # bars
MAX_ANNOTATED_CLASSES = 12  # classes up to which a confusion matrix has its numbers in it
MAX_NAMED_CLASSES = 40  # ... and up to which its rows have names
MAX_NAME_LENGTH = 18  # characters of a class at an axis


class Chart(NamedTuple):
    """A chart: what it is called in files and in the page, a sentence that says what is to be seen, and its drawer."""

    name: str
    title: str
    caption: str
    draw: Callable[[], Figure]


def charts(content: ReportContent) -> list[Chart]:
    """Return the charts that there is something to draw for, in the page's order."""
    best = content.winner.trial
    every = [
        Chart("history", "Optimization history", _caption_history(content), lambda: _history(content)),
        Chart("curves", "Learning curves", _caption_curves(content), lambda: _curves(content)),
        Chart("freeze", "Accuracy by freeze depth", _caption_freeze(content), lambda: _freeze(content)),
    ]
    important = importances(content)
    if important:
        says = f"What mattered most for the score: {', '.join(list(important)[:3])}."
        every.append(Chart("importance", "Parameter importance", says, lambda: _importance(content, list(important))))
    costs: tuple[tuple[CostMetric, str], ...] = (("latency_ms", "latency"), ("mb", "size"))
    for measure, word in costs if content.costed_trials else ():
        every.append(_cost_chart(content, measure, word))
    return [*every, confusion_chart(content.scores, f"trial {best.number}")]


def confusion_chart(scores: ClassificationMetrics, whose: str) -> Chart:
    """Return the chart of what was taken for what."""
    says = f"Rows are the truth, columns the answers of {whose}; what is off the diagonal is wrong."
    return Chart("confusion", "Confusion matrix", says, lambda: _confusion(scores))


@contextmanager
def render_figure(chart: Chart) -> Iterator[Figure]:
    """Within: the chart as a figure."""
    import matplotlib.pyplot as plt

    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna says of each of its charts that it is experimental
        figure = chart.draw()
        try:
            yield figure
        finally:
            plt.close(figure)


def importances(content: ReportContent) -> dict[str, float]:
    """Return the share of each setting in how scores differ, largest first; none where too few trials tell.

    By Optuna's default way, of the trials that ran to their end: the scores of others are of an earlier epoch.
    """
    from optuna.importance import get_param_importances

    study = to_study(content.trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = get_param_importances(study)
        except (ValueError, RuntimeError):  # all scores alike, or fewer than two trials
            return {}
    told = {name: value for name, value in found.items() if value > 0 and math.isfinite(value)}
    return dict(list(told.items())[:MAX_IMPORTANCES])


def _figure(size: tuple[float, float] = SIZE) -> tuple[Figure, Axes]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=size)
    return figure, axes


def _history(content: ReportContent) -> Figure:
    from optuna.visualization.matplotlib import plot_optimization_history

    with _quiet_style():
        axes: Axes = plot_optimization_history(to_study(content.trials, with_pruned=True), target_name=SCORE)
    restyle(axes)
    points, line = axes.collections[0], axes.lines[0]
    points.set_color(BLUE)
    points.set_sizes([14])
    line.set(color=ORANGE, alpha=1, linewidth=1.5, drawstyle="steps-post")
    if (old := axes.get_legend()) is not None:
        old.remove()
    _legend(axes, [points, line], ["a trial", "best so far"])
    axes.set_xlabel("trial")
    return axes.figure


def _caption_history(content: ReportContent) -> str:
    best, scored = content.winner.trial, [trial for trial in content.trials if trial.trial.is_eligible]
    return f"{len(scored)} trials have a score; trial {best.number} reached {format_score(best)}."


def _curves(content: ReportContent) -> Figure:
    figure, axes = _figure()
    for trial in content.trials:
        result, curve = trial.trial, trial.curve
        if not curve:
            continue
        is_best = result.number == content.best
        color = ORANGE if is_best else BLUE if result.status == "complete" else MUTED
        width, order = (2.2, 3.0) if is_best else (0.9, 2.0)
        epochs = range(1, len(curve) + 1)
        axes.plot(epochs, curve, color=color, linewidth=width, zorder=order, alpha=1 if is_best else 0.65)
        if result.status in ENDS:
            mark, color = ENDS[result.status]
            axes.plot(epochs[-1], curve[-1], marker=mark, color=color, markersize=5, zorder=order, linestyle="none")
        elif len(curve) == 1:
            axes.plot(1, curve[0], marker=".", color=color, markersize=4, zorder=order, linestyle="none")
    marks = [_mark(ORANGE, "-"), _mark(BLUE, "-"), _mark(MUTED, "x")]
    _legend(axes, marks, ["the winner", "ran to its end", "pruned here"])
    axes.set(xlabel="epoch", ylabel=SCORE)
    axes.locator_params(axis="x", integer=True)
    return figure


def _caption_curves(content: ReportContent) -> str:
    pruned = sum(trial.trial.status == "pruned" for trial in content.trials)
    best = content.winner.trial
    return (
        f"Each line is a trial, a cross is where one was pruned ({pruned} of {len(content.trials)}). "
        f"The best, trial {best.number}, is at its best in epoch {best.best_epoch} of {best.epochs}."
    )


def _freeze(content: ReportContent) -> Figure:
    figure, axes = _figure()
    for origin, (name, color, mark) in ORIGINS.items():
        results = [trial.trial for trial in content.trials if trial.trial.origin == origin and trial.trial.is_eligible]
        points = [(share, result.score) for result in results if (share := frozen_share(result)) is not None]
        if points:
            axes.scatter(*zip(*points, strict=True), s=22, marker=mark, label=name, color=color, alpha=0.8, zorder=2)
    share = frozen_share(content.winner.trial)
    if share is not None:
        _ring(axes, share, content.winner.trial.score or 0.0)
    axes.set(xlabel="frozen share of the network's blocks, %", ylabel=SCORE, xlim=(-4, 104))
    _legend(axes, *axes.get_legend_handles_labels())
    return figure


def frozen_share(result: TrialRecord) -> float | None:
    """Return how many percent of its blocks a trial has frozen; None where that is not known yet."""
    depth, blocks = result.runtime_info.get("freeze_depth"), result.runtime_info.get("blocks")
    return 100 * float(depth) / float(blocks) if depth is not None and blocks else None


def _caption_freeze(content: ReportContent) -> str:
    share = frozen_share(content.winner.trial)
    where = "" if share is None else f" The winner's freeze line lies at {share:.0f} %."
    return f"On the left everything is trained, on the right only the head.{where}"


def _importance(content: ReportContent, shown: list[str]) -> Figure:
    from optuna.visualization.matplotlib import plot_param_importances

    with _quiet_style():
        axes: Axes = plot_param_importances(to_study(content.trials), params=shown, target_name="score")
    restyle(axes)
    for bar in axes.patches:
        bar.set_color(BLUE)
    for text in axes.texts:
        text.set(color=INK, size=8.5)
    if (old := axes.get_legend()) is not None:
        old.remove()
    axes.set(xlabel="share in how scores differ", ylabel="")
    axes.margins(x=0.14)
    return axes.figure


def _confusion(scores: ClassificationMetrics) -> Figure:
    import numpy as np
    from sklearn.metrics import ConfusionMatrixDisplay

    counts = np.array(scores.confusion)
    names = [_short(one.name) for one in scores.per_class]
    side = SIZE[0] if len(names) <= MAX_ANNOTATED_CLASSES else SIZE[0] * 1.3
    figure, axes = _figure((side, side * 0.86))
    shown = ConfusionMatrixDisplay(counts, display_labels=names if len(names) <= MAX_NAMED_CLASSES else None)
    shown.plot(
        ax=axes, cmap="Blues", colorbar=False, include_values=len(names) <= MAX_ANNOTATED_CLASSES, values_format="d"
    )
    axes.grid(False)
    axes.set(xlabel="answer", ylabel="truth")
    axes.tick_params(axis="x", labelrotation=40 if max(map(len, names)) > 3 else 0)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right" if max(map(len, names)) > 3 else "center")
    return figure


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME_LENGTH else f"{name[: MAX_NAME_LENGTH - 1]}…"


def _cost_chart(content: ReportContent, measure: CostMetric, word: str) -> Chart:
    leading = pareto_front(content.costed_trials, measure)
    says = "; ".join(
        f"{describe_network(one.trial)}: {format_score(one.trial)} at {getattr(one.cost, measure):.3g} {COSTS[measure]}"
        for one in leading[:4]
    )
    text = f"The line joins the networks that none beats both ways. {says}."
    return Chart(word, f"Accuracy against {word}", text, lambda: _cost(content, measure))


def _cost(content: ReportContent, measure: CostMetric) -> Figure:
    figure, axes = _figure()
    leading = pareto_front(content.costed_trials, measure)
    points = [(getattr(one.cost, measure), one.trial.score) for one in content.costed_trials]
    axes.scatter(*zip(*points, strict=True), s=24, color=BLUE, label="a network", zorder=2)
    steps = [(getattr(one.cost, measure), one.trial.score) for one in reversed(leading)]
    axes.plot(*zip(*steps, strict=True), color=ORANGE, drawstyle="steps-post", linewidth=1.5, label="front", zorder=1)
    most = content.limits.active.get(measure)
    if most is not None:
        axes.axvline(most, color=RED, linestyle="--", linewidth=1.2, label=f"limit {most:g}")
    if content.cost_of_winner is not None:
        _ring(axes, getattr(content.cost_of_winner.cost, measure), content.winner.trial.score or 0.0)
    axes.set(xlabel=COSTS[measure], ylabel=SCORE)
    _legend(axes, *axes.get_legend_handles_labels())
    return figure


def _ring(axes: Axes, x: float, y: float) -> None:
    """Draw a ring around the winner."""
    ring = {"facecolors": "none", "edgecolors": INK, "linewidths": 1.4}
    axes.scatter([x], [y], s=130, label="the winner", zorder=3, **ring)


def _mark(color: str, mark: str) -> Line2D:
    """Return what stands for a line (``-``) or a mark in a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=color, linestyle="-" if mark == "-" else "none", marker="" if mark == "-" else mark)


def _legend(axes: Axes, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """Draw a legend above the chart, where it covers nothing."""
    rows = 2 if len(labels) > 3 else 1
    columns = math.ceil(len(labels) / rows)
    axes.figure.legend(handles, labels, loc="outside upper left", ncols=columns, labelcolor=INK, handletextpad=0.5)


@contextmanager
def _quiet_style() -> Iterator[None]:
    """Within: a library may set a style of its own for all charts to come; afterwards ours is back."""
    with mpl.rc_context():
        yield
