"""The charts of a report, drawn from its content alone, and the chart that compares searches."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import matplotlib as mpl

from models.evaluation.metrics import ClassificationMetrics
from tuning.common.formatting import describe_network, format_score, pluralize
from tuning.common.trial_record import ParamValue, TrialOrigin, TrialRecord
from tuning.reporting.content import ReportContent
from tuning.reporting.theme import BLUE, FIGURE_SIZE, GREEN, INK, MUTED, ORANGE, RED, STYLE, png
from tuning.search.selection import COST_FORMATS, PARETO_LABELS, CostMetric, pareto_front
from tuning.tracking.search_summary import SearchSummary

if TYPE_CHECKING:
    import optuna
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from optuna.distributions import BaseDistribution

mpl.use("Agg")  # never open a window

SCORE = "validation balanced accuracy"
ORIGINS: dict[TrialOrigin, tuple[str, str, str]] = {  # label, color and marker; markers differ for color-blind readers
    "default": ("default", ORANGE, "D"),
    "probe": ("linear probe", MUTED, "s"),
    "fine-tune": ("fine-tuned probe", GREEN, "^"),
    "sampler": ("sampler", BLUE, "o"),
}
END_MARKERS = {
    "pruned": ("x", MUTED),
    "out of time": ("|", MUTED),
    "failed": ("v", RED),
}  # marker and color at the end of a curve
COST_LABELS: dict[CostMetric, str] = {"latency_ms": "latency per image on one core, ms", "mb": "size, MB"}
LOG_SCALE_SETTINGS = ("lr", "weight_decay")
MAX_IMPORTANCES = 10  # bars
MIN_IMPORTANCE_TRIALS = 20  # fewer give shares that another seed of the estimator would turn upside down
MAX_ANNOTATED_CLASSES = 12  # up to this number, the cells of a confusion matrix have numbers
MAX_NAMED_CLASSES = 40  # up to this number, its axes have class names
MAX_NAME_LENGTH = 18  # characters of a class name at an axis
MAX_CAPTIONED_NETWORKS = 4  # of the Pareto front


class Chart(NamedTuple):
    """A chart: its name in files and in the page, its title and caption, and the function that draws it."""

    name: str
    title: str
    caption: str
    draw: Callable[[], Figure]


def build_charts(content: ReportContent) -> list[Chart]:
    """Return the charts that have data, in the page's order."""
    best = content.result.winner
    charts = [
        Chart("history", "Optimization history", _caption_history(content), lambda: _history(content)),
        Chart("curves", "Learning curves", _caption_curves(content), lambda: _curves(content)),
        Chart("freeze", "Accuracy by freeze depth", _caption_freeze(content), lambda: _freeze(content)),
    ]
    shares = importances(content.result.trials)
    if shares:
        count = len(importance_trials(content.result.trials))
        caption = (
            f"Estimated from {count} complete trials without probes. Most important: {', '.join(list(shares)[:3])}."
        )
        charts.append(Chart("importance", "Hyperparameter importance", caption, lambda: _importance(shares)))
    if content.result.has_pareto_front:
        charts += [_cost_chart(content, metric, name) for metric, name in PARETO_LABELS.items()]
    charts.append(
        Chart("reliability", "Reliability diagram", _caption_reliability(content), lambda: _reliability(content))
    )
    return [*charts, confusion_chart(content.scores, f"trial {best.number}")]


def confusion_chart(scores: ClassificationMetrics, model: str) -> Chart:
    """Return the confusion matrix of a model."""
    caption = f"Rows: true class. Columns: class predicted by {model}. Errors are off the diagonal."
    return Chart("confusion", "Confusion matrix", caption, lambda: _confusion(scores))


@contextmanager
def render_figure(chart: Chart) -> Iterator[Figure]:
    """Context manager: draw a chart, and close its figure on exit."""
    import matplotlib.pyplot as plt

    with mpl.rc_context(STYLE):
        figure = chart.draw()
        try:
            yield figure
        finally:
            plt.close(figure)


def importances(trials: Sequence[TrialRecord]) -> dict[str, float]:
    """Return the importance of each setting as its share of the score's variance (fANOVA), largest first.

    Empty with fewer than ``MIN_IMPORTANCE_TRIALS``, or if they all have the same score.
    """
    from optuna.importance import get_param_importances

    counted = importance_trials(trials)
    if len(counted) < MIN_IMPORTANCE_TRIALS:
        return {}
    study = to_study(counted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importance_by_name = get_param_importances(study)
        except (ValueError, RuntimeError):  # all scores equal, or fewer than two trials
            return {}
    valid = {name: value for name, value in importance_by_name.items() if value > 0 and math.isfinite(value)}
    return dict(list(valid.items())[:MAX_IMPORTANCES])


def importance_trials(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the complete trials without probes, which all share most settings, and without re-runs."""
    return [trial for trial in trials if trial.status == "complete" and trial.counts_as_trial and trial.is_eligible]


def to_study(trials: Sequence[TrialRecord]) -> optuna.Study:
    """Return the trials with a score as an in-memory study, without the settings that all trials share.

    In the study of the search, a conditional setting has a name of its own (SGD's learning rate, a variant's image
    size). Here each setting has the option's name, so that all trials are comparable.
    """
    import optuna
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    eligible = [trial for trial in trials if trial.is_eligible]
    distributions = _distributions([trial.settings for trial in eligible])
    study = optuna.create_study(direction="maximize")
    for trial in eligible:
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if trial.status == "complete" else TrialState.PRUNED,
                value=trial.score,
                params={name: trial.settings[name] for name in distributions},
                distributions=distributions,
            )
        )
    return study


def _distributions(settings: Sequence[dict[str, ParamValue]]) -> dict[str, BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    distributions: dict[str, BaseDistribution] = {}
    common = [name for name in (settings[0] if settings else ()) if all(name in params for params in settings)]
    for name in common:
        values = list(dict.fromkeys(params[name] for params in settings))
        numbers = [float(value) for value in values if not isinstance(value, str)]
        if len(values) < 2:
            continue
        if len(numbers) < len(values):
            distributions[name] = CategoricalDistribution(values)
        else:
            low, high = min(numbers), max(numbers)
            distributions[name] = FloatDistribution(low, high, log=name in LOG_SCALE_SETTINGS and low > 0)
    return distributions


def _figure(size: tuple[float, float] = FIGURE_SIZE) -> tuple[Figure, Axes]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=size)
    return figure, axes


def _history(content: ReportContent) -> Figure:
    figure, axes = _figure()
    points = [(trial.number, trial.score or 0.0) for trial in content.result.trials if trial.is_eligible]
    numbers, scores = zip(*points, strict=True)
    best_so_far = list(itertools.accumulate(scores, max))
    axes.scatter(numbers, scores, s=14, color=BLUE, label="trial")
    axes.plot(numbers, best_so_far, color=ORANGE, linewidth=1.5, drawstyle="steps-post", label="best so far")
    axes.set(xlabel="trial", ylabel=SCORE)
    axes.locator_params(axis="x", integer=True)
    _legend(axes, *axes.get_legend_handles_labels())
    return figure


def _caption_history(content: ReportContent) -> str:
    best, num_eligible = content.result.winner, sum(trial.is_eligible for trial in content.result.trials)
    total = pluralize(len(content.result.trials), "trial")
    return f"{num_eligible} of {total} have a score. The winner, trial {best.number}, reached {format_score(best)}."


def _curves(content: ReportContent) -> Figure:
    from matplotlib.lines import Line2D

    figure, axes = _figure()
    for trial in content.result.trials:
        curve = trial.scores
        if not curve:
            continue
        is_best = trial.number == content.result.winner.number
        color = ORANGE if is_best else BLUE if trial.status == "complete" else MUTED
        width, order = (2.2, 3.0) if is_best else (0.9, 2.0)
        epochs = range(1, len(curve) + 1)
        axes.plot(epochs, curve, color=color, linewidth=width, zorder=order, alpha=1 if is_best else 0.65)
        if trial.status in END_MARKERS:
            marker, color = END_MARKERS[trial.status]
            axes.plot(epochs[-1], curve[-1], marker=marker, color=color, markersize=5, zorder=order, linestyle="none")
        elif len(curve) == 1:
            axes.plot(1, curve[0], marker=".", color=color, markersize=4, zorder=order, linestyle="none")
    crosses = Line2D([], [], color=MUTED, linestyle="none", marker="x")
    bars = Line2D([], [], color=MUTED, linestyle="none", marker="|")
    handles = [Line2D([], [], color=ORANGE), Line2D([], [], color=BLUE), crosses, bars]
    _legend(axes, handles, ["winner", "complete", "pruned", "out of time"])
    axes.set(xlabel="epoch", ylabel=SCORE)
    axes.locator_params(axis="x", integer=True)
    return figure


def _caption_curves(content: ReportContent) -> str:
    trials, best = content.result.trials, content.result.winner
    pruned, out_of_time = (sum(trial.status == status for trial in trials) for status in ("pruned", "out of time"))
    return (
        f"One line per trial; of {len(trials)}, {pruned} were pruned (cross) and {out_of_time} ran out of time (bar). "
        f"The winner, trial {best.number}, peaked at epoch {best.best_epoch} of {best.epochs}."
    )


def _freeze(content: ReportContent) -> Figure:
    figure, axes = _figure()
    for origin, (label, color, marker) in ORIGINS.items():
        trials = [trial for trial in content.result.trials if trial.origin == origin and trial.is_eligible]
        points = [(percent, trial.score) for trial in trials if (percent := frozen_percent(trial)) is not None]
        if points:
            axes.scatter(*zip(*points, strict=True), s=22, marker=marker, label=label, color=color, alpha=0.8, zorder=2)
    percent = frozen_percent(content.result.winner)
    if percent is not None:
        _mark_winner(axes, percent, content.result.winner.score or 0.0)
    axes.set(xlabel="frozen share of the network's blocks, %", ylabel=SCORE, xlim=(-4, 104))
    _legend(axes, *axes.get_legend_handles_labels())
    return figure


def frozen_percent(trial: TrialRecord) -> float | None:
    """Return the percentage of a trial's blocks that are frozen; None if unknown."""
    depth, blocks = trial.runtime_info.get("freeze_depth"), trial.runtime_info.get("blocks")
    return 100 * float(depth) / float(blocks) if depth is not None and blocks else None


def _caption_freeze(content: ReportContent) -> str:
    percent = frozen_percent(content.result.winner)
    winner = "" if percent is None else f" The winner froze {percent:.0f}% of the blocks."
    return f"At 0% the whole network is trained, at 100% only the head.{winner}"


def _importance(importance_by_name: dict[str, float]) -> Figure:
    figure, axes = _figure()
    names, shares = zip(*reversed(importance_by_name.items()), strict=True)
    bars = axes.barh(names, shares, color=BLUE)
    axes.bar_label(bars, [f"{share:.2f}" if share >= 0.01 else "<0.01" for share in shares], padding=2, size=8.5)
    axes.set(xlabel="share of score variance (fANOVA)")
    axes.margins(x=0.14)
    return figure


def _confusion(scores: ClassificationMetrics) -> Figure:
    import numpy as np
    from sklearn.metrics import ConfusionMatrixDisplay

    counts = np.array(scores.confusion)
    names = [_shorten(row.name) for row in scores.per_class]
    is_annotated = len(names) <= MAX_ANNOTATED_CLASSES
    width = FIGURE_SIZE[0] if is_annotated else FIGURE_SIZE[0] * 1.3
    figure, axes = _figure((width, width * 0.86))
    display = ConfusionMatrixDisplay(counts, display_labels=names if len(names) <= MAX_NAMED_CLASSES else None)
    display.plot(ax=axes, cmap="Blues", colorbar=False, include_values=is_annotated, values_format="d")
    axes.grid(False)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.tick_params(axis="x", labelrotation=40 if max(map(len, names)) > 3 else 0)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right" if max(map(len, names)) > 3 else "center")
    return figure


def _caption_reliability(content: ReportContent) -> str:
    metrics, temperature = content.candidate.metrics, content.candidate.temperature
    before, after = metrics["test_ece"], metrics["test_ece_calibrated"]
    action = f"was divided by the temperature {temperature:.2f}" if temperature != 1 else "was not changed"
    return (
        f"A point is above the diagonal where the network is too cautious, below where it is too certain. "
        f"Its output {action}: expected calibration error on test {before:.3f} before, {after:.3f} after."
    )


def _reliability(content: ReportContent) -> Figure:
    figure, axes = _figure()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--", label="perfectly calibrated")
    styles = {"before calibration": (MUTED, "s"), "after": (BLUE, "o")}
    for (label, (color, marker)), bins in zip(styles.items(), content.reliability, strict=True):
        points = [(each.mean_confidence, each.accuracy) for each in bins]
        sizes = [10 + 90 * each.num_images / content.candidate.num_test_images for each in bins]
        axes.scatter(*zip(*points, strict=True), s=sizes, color=color, marker=marker, label=label, alpha=0.8, zorder=2)
    axes.set(xlabel="mean probability of the predicted class", ylabel="accuracy", xlim=(0, 1.03), ylim=(-0.03, 1.03))
    _legend(axes, *axes.get_legend_handles_labels())
    return figure


def _shorten(name: str) -> str:
    return name if len(name) <= MAX_NAME_LENGTH else f"{name[: MAX_NAME_LENGTH - 1]}…"


def _cost_chart(content: ReportContent, metric: CostMetric, name: str) -> Chart:
    networks = "; ".join(
        f"{describe_network(costed.trial)}: {format_score(costed.trial)} at "
        f"{COST_FORMATS[metric].format(getattr(costed.cost, metric))}"
        for costed in pareto_front(content.result.costed_trials, metric)[:MAX_CAPTIONED_NETWORKS]
    )
    caption = f"The line is the Pareto front. {networks}."
    return Chart(name, f"Accuracy against {name}", caption, lambda: _cost(content, metric))


def _cost(content: ReportContent, metric: CostMetric) -> Figure:
    figure, axes = _figure()
    front = pareto_front(content.result.costed_trials, metric)
    points = [(getattr(costed.cost, metric), costed.trial.score) for costed in content.result.costed_trials]
    axes.scatter(*zip(*points, strict=True), s=24, color=BLUE, label="network", zorder=2)
    steps = [(getattr(costed.cost, metric), costed.trial.score) for costed in reversed(front)]
    front_style = {"color": ORANGE, "drawstyle": "steps-post", "linewidth": 1.5, "zorder": 1}
    axes.plot(*zip(*steps, strict=True), label="Pareto front", **front_style)
    limit = content.result.limits.get(metric)
    if limit is not None:
        axes.axvline(limit, color=RED, linestyle="--", linewidth=1.2, label=f"limit {limit:g}")
    if content.result.winner_cost is not None:
        _mark_winner(axes, getattr(content.result.winner_cost, metric), content.result.winner.score or 0.0)
    axes.set(xlabel=COST_LABELS[metric], ylabel=SCORE)
    _legend(axes, *axes.get_legend_handles_labels())
    return figure


def _mark_winner(axes: Axes, x: float, y: float) -> None:
    """Draw a ring around the winner's point."""
    ring = {"facecolors": "none", "edgecolors": INK, "linewidths": 1.4}
    axes.scatter([x], [y], s=130, label="winner", zorder=3, **ring)


def _legend(axes: Axes, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """Draw a legend above the chart, outside of the data area."""
    rows = 2 if len(labels) > 3 else 1
    columns = math.ceil(len(labels) / rows)
    axes.figure.legend(handles, labels, loc="outside upper left", ncols=columns, labelcolor=INK, handletextpad=0.5)


def comparison_chart(searches: Sequence[SearchSummary]) -> bytes:
    """Return a PNG of each search's best validation score over the minutes since its first trial began."""
    import matplotlib.pyplot as plt

    lines = [(color, style) for style in ("-", "--", ":") for color in (BLUE, ORANGE, GREEN, RED, MUTED)]
    with mpl.rc_context(STYLE):
        figure, axes = _figure()
        for search, (color, style) in zip(searches, lines, strict=False):
            minutes = [point.seconds / 60 for point in search.improvements]
            scores = [point.score for point in search.improvements]
            if scores:  # the line continues at the best score until the search's end
                label = f"{search.name} {search.short_id}"
                steps = [*minutes, search.minutes], [*scores, scores[-1]]
                axes.plot(*steps, color=color, linestyle=style, drawstyle="steps-post", label=label)
        axes.set(xlabel="minutes since the first trial began", ylabel="best validation balanced accuracy")
        axes.legend(loc="lower right", labelcolor=INK)
        image = png(figure)
        plt.close(figure)
    return image
