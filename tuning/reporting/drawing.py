"""What the charts share: figures, axes in percent, legends, and the look of each origin of a trial."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import AutoLocator, FuncFormatter

from tuning.common.trial_record import TrialOrigin, TrialRecord
from tuning.reporting.theme import BLUE, FIGURE_SIZE, GREEN, INK, MUTED, ORANGE, RED

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

mpl.use("Agg")  # never open a window

SCORE = "validation balanced accuracy"
MANY_TRIALS = 150  # charts of more have smaller marks
MIN_SPREAD = 0.02  # of the scores; a smaller one would make every other score an outlier
MAX_ROUNDING = 1e-9  # of a tick
OUTLIER_RANGES = 1.5  # below the first quartile, in interquartile ranges (Tukey's rule for outliers)


class OriginStyle(NamedTuple):
    """The label, color and marker of an origin; markers differ for color-blind readers."""

    label: str
    color: str
    marker: str


ORIGINS: dict[TrialOrigin, OriginStyle] = {
    "champion": OriginStyle("champion's configuration", RED, "P"),
    "default": OriginStyle("default", ORANGE, "D"),
    "probe": OriginStyle("linear probe", MUTED, "s"),
    "fine_tune": OriginStyle("fine-tuned probe", GREEN, "^"),
    "sampler": OriginStyle("sampler", BLUE, "o"),
    "rerun": OriginStyle("re-run", INK, "v"),
}


def new_figure(size: tuple[float, float] = FIGURE_SIZE) -> tuple[Figure, Axes]:
    """Return a figure of ``size`` in inches with one pair of axes."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=size)
    return figure, axes


def new_grid(num_rows: int, num_columns: int, size: tuple[float, float]) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure of ``size`` in inches with rows of axes; those of a row share their y axis."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(num_rows, num_columns, figsize=size, squeeze=False, sharey="row")
    return figure, axes.tolist()


def shorten(name: str, max_length: int) -> str:
    """Return a name cut to a length, with an ellipsis."""
    return name if len(name) <= max_length else f"{name[: max_length - 1]}…"


class ShareLocator(AutoLocator):  # type: ignore[misc]  # mypy ignores the types of matplotlib
    """Places the ticks of an axis of shares: none above 1, where the axis may have a margin for markers."""

    def tick_values(self, vmin: float, vmax: float) -> list[float]:
        """Return the ticks between two values."""
        return [tick for tick in super().tick_values(vmin, vmax) if tick <= 1 + MAX_ROUNDING]


def percent_axis(axis: Axis) -> None:
    """Label the ticks of an axis of shares in percent."""
    axis.set_major_locator(ShareLocator())
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{round(100 * share, 6):g}%"))


def draw_legend(axes: Axes, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """Draw a legend above the chart, outside of the data area."""
    rows = 2 if len(labels) > 3 else 1
    columns = math.ceil(len(labels) / rows)
    axes.figure.legend(handles, labels, loc="outside upper left", ncols=columns, labelcolor=INK, handletextpad=0.5)


def mark_winner(axes: Axes, x: float, y: float) -> None:
    """Draw a ring around the winner's point."""
    ring = {"facecolors": "none", "edgecolors": INK, "linewidths": 1.4}
    axes.scatter([x], [y], s=130, label="winner", zorder=4, **ring)


def scatter_by_origin(axes: Axes, points: Iterable[tuple[TrialRecord, float]]) -> None:
    """Draw each trial's score at its x, in the color of its origin; trials that did not complete are hollow."""
    listed = list(points)
    size = 24 if len(listed) <= MANY_TRIALS else 8
    lowest = score_limits([trial.score or 0.0 for trial, _ in listed])[0] if listed else 0.0
    for origin, (label, color, marker) in ORIGINS.items():
        own = [(trial, x) for trial, x in listed if trial.origin == origin]
        faces = [color if trial.status == "complete" else "none" for trial, _ in own]
        if own:
            x, y = [x for _, x in own], [trial.score for trial, _ in own]
            axes.scatter(x, y, s=size, marker=marker, c=faces, edgecolors=color, linewidths=1.2, zorder=3)
        if any((trial.score or 0.0) >= lowest for trial, _ in own):  # others are below the chart
            axes.scatter([], [], s=24, marker=marker, color=color, label=label)  # the legend's marker is never hollow


def score_limits(scores: Sequence[float]) -> tuple[float, float]:
    """Return the range of a score axis: all scores without the low outliers, at most 1."""
    first, third = np.percentile(scores, (25, 75))
    fence = float(first) - OUTLIER_RANGES * max(float(third - first), MIN_SPREAD)
    low, high = min(score for score in scores if score >= fence), max(scores)
    margin = max(high - low, MIN_SPREAD) * 0.08
    return max(low - margin, 0.0), min(high + margin, 1.0 + margin / 2)


def caption_outliers(scores: Sequence[float]) -> str:
    """Return a sentence about the scores below the range of their axis; empty if there are none."""
    below = sum(score < score_limits(scores)[0] for score in scores)
    return f" {below} lower {'score is' if below == 1 else 'scores are'} below the chart." if below else ""


def jitter(positions: Sequence[float], width: float) -> list[float]:
    """Return the positions with equal ones spread evenly over ``width``, in a fixed order."""
    counts = {x: positions.count(x) for x in set(positions)}
    seen = {x: itertools.count() for x in counts}
    return [x + width * ((next(seen[x]) + 0.5) / counts[x] - 0.5) if counts[x] > 1 else x for x in positions]


def active_minutes(trials: Sequence[TrialRecord]) -> dict[str, tuple[float, float]]:
    """Return when each trial started and ended, by uid, in minutes since the first; without pauses of the search.

    Empty unless all trials that ended have these times. A pause is a time without a trial, such as that between a stop
    and the resumed search.
    """
    ended = [trial for trial in trials if trial.status != "running"]
    spans = sorted((trial.started_s or 0.0, trial.ended_s or 0.0, trial.trial_uid) for trial in ended)
    if any(trial.started_s is None or trial.ended_s is None for trial in ended):
        return {}
    minutes, pause, last_end = {}, 0.0, None
    for start, end, trial_uid in spans:
        pause += max(start - last_end, 0.0) if last_end is not None else start
        last_end = max(end, last_end or end)
        minutes[trial_uid] = ((start - pause) / 60, (end - pause) / 60)
    return minutes
