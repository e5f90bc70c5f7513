"""The list of a report's charts, drawn from its content alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import matplotlib as mpl

from data.text import pluralize
from models.evaluation.metrics import ClassificationMetrics
from tuning.reporting import prediction_charts, quality_charts, setting_charts, trial_charts
from tuning.reporting.content import EvaluatedWinner, ReportContent
from tuning.reporting.drawing import active_minutes
from tuning.reporting.importance import draw_importance, importance_trials, importances
from tuning.reporting.summary import confused_pairs
from tuning.reporting.theme import STYLE
from tuning.search.search_result import SearchResult
from tuning.search.selection import PARETO_LABELS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MAX_DRAWN_PAIRS = 20  # of the pairs of many classes


class Chart(NamedTuple):
    """A chart: its name in files and in the page, its title and caption, and the function that draws it."""

    name: str
    title: str
    caption: str
    draw: Callable[[], Figure]


def build_charts(content: ReportContent) -> list[Chart]:
    """Return the charts that have data, in the page's order."""
    return [*_trial_charts(content.result), *_quality_charts(content)]


def _trial_charts(result: SearchResult) -> Iterator[Chart]:
    winner = result.winner
    caption = trial_charts.caption_history(result)
    yield Chart("history", "Optimization history", caption, partial(trial_charts.draw_history, result))
    if active_minutes(result.trials):
        caption = trial_charts.caption_timeline(result)
        yield Chart("timeline", "Timeline", caption, partial(trial_charts.draw_timeline, result))
    caption = trial_charts.caption_curves(result)
    yield Chart("curves", "Learning curves", caption, partial(trial_charts.draw_curves, result))
    if trial_charts.has_losses(winner):
        caption = trial_charts.caption_losses(winner)
        yield Chart("losses", "Losses of the winner", caption, partial(trial_charts.draw_losses, winner))
    caption = trial_charts.caption_freeze(result)
    yield Chart("freeze", "Accuracy by freeze depth", caption, partial(trial_charts.draw_freeze, result))
    if shares := importances(result.trials):
        caption = (
            f"Estimated from {len(importance_trials(result.trials))} complete trials without probes. "
            f"Most important: {', '.join(list(shares)[:3])}."
        )
        yield Chart("importance", "Hyperparameter importance", caption, partial(draw_importance, shares))
    if setting_charts.setting_axes(setting_charts.setting_trials(result)):
        caption = setting_charts.caption_parallel(result)
        yield Chart("parallel", "Parallel coordinates", caption, partial(setting_charts.draw_parallel, result))
        caption = setting_charts.caption_slices(result)
        yield Chart("slices", "Score by setting", caption, partial(setting_charts.draw_slices, result))


def _quality_charts(content: ReportContent) -> Iterator[Chart]:
    if content.result.has_pareto_front:
        for metric, name in PARETO_LABELS.items():
            caption = quality_charts.caption_cost(content, metric)
            yield Chart(name, f"Accuracy against {name}", caption, partial(quality_charts.draw_cost, content, metric))
    caption = quality_charts.caption_reliability(content)
    yield Chart("reliability", "Reliability diagram", caption, partial(quality_charts.draw_reliability, content))
    yield from _prediction_charts(content.winner)
    yield confusion_chart(content.scores, "the packaged model")
    classes = content.candidate.classes
    if len(classes) <= quality_charts.MAX_NAMED_CLASSES:
        caption = f"{pluralize(content.audit.num_images, 'image')} in {pluralize(len(classes), 'class')}."
        draw = partial(quality_charts.draw_class_balance, content.audit.counts, classes)
        yield Chart("balance", "Images by class and split", caption, draw)


def _prediction_charts(winner: EvaluatedWinner) -> Iterator[Chart]:
    caption = prediction_charts.caption_confidence(winner)
    yield Chart("confidence", "Confidence", caption, partial(prediction_charts.draw_confidence, winner))
    if prediction_charts.has_curves(winner):
        caption = prediction_charts.caption_roc(winner)
        yield Chart("roc", "ROC curve", caption, partial(prediction_charts.draw_roc, winner))
        caption = prediction_charts.caption_precision_recall(winner)
        draw = partial(prediction_charts.draw_precision_recall, winner)
        yield Chart("precision-recall", "Precision-recall curve", caption, draw)


def confusion_chart(scores: ClassificationMetrics, model: str) -> Chart:
    """Return the confusion matrix of a model; with many classes, the pairs that it confuses most often."""
    if len(scores.per_class) > quality_charts.MAX_NAMED_CLASSES:
        pairs = confused_pairs(scores, MAX_DRAWN_PAIRS)
        caption = f"True class and the class predicted by {model}, by number of images."
        draw = partial(quality_charts.draw_confused_pairs, pairs)
        return Chart("confusion", "Most confused classes", caption, draw)
    caption = (
        f"Rows: true class. Columns: class predicted by {model}. Numbers are images; the color is their share of the "
        "row, blue if correct, orange if wrong."
    )
    return Chart("confusion", "Confusion matrix", caption, partial(quality_charts.draw_confusion, scores))


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
