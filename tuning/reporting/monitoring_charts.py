"""Charts of a model in use: its answers in a window against those for the test images, and over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from data.text import pluralize
from tuning.monitoring.records import Records
from tuning.monitoring.reference import MonitoringReference
from tuning.monitoring.timeline import TimeBin
from tuning.reporting.charts import Chart
from tuning.reporting.drawing import draw_legend, new_figure, percent_axis, shorten
from tuning.reporting.theme import BLUE, MUTED, ORANGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from models.evaluation.metrics import Floats

MAX_CLASSES = 20  # of the chart: those whose share has changed most
MAX_NAME_LENGTH = 24
NUM_BINS = 20
BAR_HEIGHT = 0.4


def monitoring_charts(
    reference: MonitoringReference, window: Records, bins: Sequence[TimeBin], classes: Sequence[str]
) -> Iterator[Chart]:
    """Yield the charts of a window."""
    caption = "Share of the answers by predicted class, the largest changes first."
    yield Chart("classes", "Predicted classes", caption, partial(draw_classes, reference, window, classes))
    caption = "Probability of the predicted class."
    values = reference.confidence, window.confidence
    yield Chart("confidence", "Confidence", caption, partial(draw_histograms, *values, "confidence"))
    if reference.novelty is not None and window.novelty is not None:
        caption = "Share of validation images that lie nearer to the training images."
        values = reference.novelty, window.novelty
        yield Chart("novelty", "Novelty", caption, partial(draw_histograms, *values, "novelty"))
    caption = f"Means of {pluralize(len(bins), 'equal part')} of the time. {pluralize(len(window.times), 'image')}."
    yield Chart("time", "Over time", caption, partial(draw_timeline, bins))


def draw_classes(reference: MonitoringReference, window: Records, classes: Sequence[str]) -> Figure:
    """Draw the share of each predicted class before and now."""
    before, now = (
        np.bincount(each.classes, minlength=len(classes)) / len(each.classes) for each in (reference, window)
    )
    shown = np.argsort(-abs(before - now), kind="stable")[:MAX_CLASSES]
    figure, axes = new_figure((4.6, 1.2 + 0.34 * len(shown)))
    rows = np.arange(len(shown))
    axes.barh(rows - BAR_HEIGHT / 2, before[shown], BAR_HEIGHT, color=MUTED, label="test images")
    axes.barh(rows + BAR_HEIGHT / 2, now[shown], BAR_HEIGHT, color=BLUE, label="in use")
    axes.set_yticks(rows, [shorten(classes[index], MAX_NAME_LENGTH) for index in shown])
    axes.invert_yaxis()
    percent_axis(axes.xaxis)
    draw_legend(axes, *axes.get_legend_handles_labels())
    return figure


def draw_histograms(before: Floats, now: Floats, label: str) -> Figure:
    """Draw the distributions of a share, 0 to 1, before and now."""
    figure, axes = new_figure()
    edges = np.linspace(0, 1, NUM_BINS + 1)
    for values, color, name in ((before, MUTED, "test images"), (now, BLUE, "in use")):
        counts, _ = np.histogram(values, edges)
        axes.stairs(counts / len(values), edges, color=color, fill=color == MUTED, linewidth=1.6, label=name)
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    axes.set_xlabel(label)
    axes.set_ylabel("share of images")
    draw_legend(axes, *axes.get_legend_handles_labels())
    return figure


def draw_timeline(bins: Sequence[TimeBin]) -> Figure:
    """Draw the mean confidence and novelty over time."""
    figure, axes = new_figure()
    times = [datetime.fromtimestamp(each.time_s, tz=UTC) for each in bins]
    axes.plot(times, [each.metrics["mean_confidence"] for each in bins], color=BLUE, marker="o", label="confidence")
    if "mean_novelty" in bins[0].metrics:
        axes.plot(times, [each.metrics["mean_novelty"] for each in bins], color=ORANGE, marker="s", label="novelty")
    axes.set_ylim(0, 1.02)
    percent_axis(axes.yaxis)
    figure.autofmt_xdate()
    draw_legend(axes, *axes.get_legend_handles_labels())
    return figure
