"""The charts of a search's settings: parallel coordinates, and the score against each setting (slices).

Both place each setting's values on an axis from 0 to 1: categories and few different numbers are evenly spaced, others
are linear, or logarithmic for learning rate and weight decay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from data.text import pluralize
from tuning.common.formatting import short_network_name
from tuning.common.names import VARIANT
from tuning.common.option_types import ParamValue
from tuning.common.trial_record import TrialRecord
from tuning.reporting.drawing import (
    SCORE,
    caption_outliers,
    draw_legend,
    jitter,
    mark_winner,
    new_grid,
    percent_axis,
    scatter_by_origin,
    score_limits,
    shorten,
)
from tuning.reporting.importance import LOG_SCALE_SETTINGS
from tuning.reporting.theme import BLUE, FIGURE_SIZE, GRID, INK, MUTED, ORANGE, PAPER
from tuning.search.search_result import SearchResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MIN_TRIALS = 8  # fewer lines or points show no pattern
MAX_TRIALS = 40  # more hide each other and would make the page large
MAX_SETTINGS = 6
SETTINGS = (VARIANT, "backbone", "image_size", "freeze_fraction", "lr", "optimizer", "lr_scheduler")  # come first
MAX_CATEGORIES = 6  # different numbers up to this number are evenly spaced
MAX_TICK_CHARACTERS = 48  # of all categories of an axis
MAX_SLICE_CHARACTERS = 22  # of the same in a slice, which is half as wide; more are drawn at a slope
MAX_SLOPED_CHARACTERS = 12  # of a category at a slope
TOP_SHARE = 4  # the best quarter is described in the caption
NARROW = 0.75  # of an axis; settings over which the best trials spread wider are not described
JITTER = 0.04  # width over which the lines of the same category are spread
SLICE_JITTER = 0.4  # the same of the points of a slice, as a share of the category's width
RING_MARGIN = 0.1  # above the best score of a slice, for the winner's ring
ROW_INCHES, SLICE_INCHES = 0.52, 1.55  # height of an axis and of a row of slices
MIN_OPACITY = 0.15  # of the worst trial's line
SMALL = 8  # font size of ticks


class SettingAxis(NamedTuple):
    """A setting on an axis from 0 to 1: the position of each trial, and the labels of the ticks with theirs."""

    name: str
    positions: list[float]
    ticks: list[tuple[float, str]]
    is_categorical: bool


def setting_trials(result: SearchResult) -> list[TrialRecord]:
    """Return the trials of the charts, best first: with a score, without probes and re-runs.

    Of more than ``MAX_TRIALS``, every n-th by score, so that good and bad trials remain in proportion. Empty if there
    are fewer than ``MIN_TRIALS``.
    """
    trials = [trial for trial in result.ranked if trial.is_eligible and trial.counts_as_trial]
    if len(trials) < MIN_TRIALS:
        return []
    rows = np.linspace(0, len(trials) - 1, min(len(trials), MAX_TRIALS)).round()
    return [trials[int(row)] for row in rows]


def setting_axes(trials: Sequence[TrialRecord]) -> list[SettingAxis]:
    """Return the axes of the settings that all trials have and that differ, the best known ones first."""
    common = set.intersection(*(set(trial.settings) for trial in trials)) if trials else set()
    order = [*(name for name in SETTINGS if name in common), *sorted(common - set(SETTINGS))]
    values = {name: [trial.settings[name] for trial in trials] for name in order}
    differing = [name for name in order if len(set(values[name])) > 1]
    return [_axis(name, values[name]) for name in differing[:MAX_SETTINGS]]


def _axis(name: str, values: Sequence[ParamValue]) -> SettingAxis:
    numbers = [float(value) for value in values if not isinstance(value, str)]
    different = sorted(set(values), key=str if len(numbers) < len(values) else float)
    if len(numbers) < len(values) or len(different) <= MAX_CATEGORIES:
        places = {value: index / (len(different) - 1) for index, value in enumerate(different)}
        ticks = [(place, _label(name, value)) for value, place in places.items()]
        return SettingAxis(name, [places[value] for value in values], ticks, is_categorical=True)
    is_log = name in LOG_SCALE_SETTINGS and min(numbers) > 0
    scale: Callable[[float], float] = math.log10 if is_log else float
    low, high = scale(min(numbers)), scale(max(numbers))
    ticks = [((scale(tick) - low) / (high - low), f"{tick:.2g}") for tick in _ticks(min(numbers), max(numbers), is_log)]
    return SettingAxis(name, [(scale(number) - low) / (high - low) for number in numbers], ticks, is_categorical=False)


def _ticks(low: float, high: float, is_log: bool) -> list[float]:
    """Return the powers of ten, or round numbers, between two numbers; both themselves if there are fewer than two."""
    from matplotlib.ticker import MaxNLocator

    if is_log:
        ticks = [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    else:
        ticks = [float(tick) for tick in MaxNLocator(nbins=4).tick_values(low, high) if low <= tick <= high]
    return ticks if len(ticks) > 1 else [low, high]


def _label(name: str, value: ParamValue) -> str:
    if isinstance(value, str):
        return short_network_name(value) if name == "backbone" else value
    return f"{value:.3g}"


def draw_parallel(result: SearchResult) -> Figure:
    """Draw a line for each trial through its settings to its score; the axes are horizontal, one below the other."""
    trials = setting_trials(result)
    rows = [*setting_axes(trials), _score_axis(trials)]
    figure, ((axes,),) = new_grid(1, 1, (FIGURE_SIZE[0], 0.6 + ROW_INCHES * len(rows)))
    for row, each in enumerate(rows):
        axes.hlines(row, 0, 1, color=GRID, linewidth=1.2, zorder=1)
        _label_ticks(axes, row, each)
    spread = [jitter(row.positions, JITTER) if row.is_categorical else row.positions for row in rows]
    for trial, line in reversed(list(zip(trials, zip(*spread, strict=True), strict=True))):
        is_best = trial.number == result.winner.number
        style = {"color": ORANGE, "linewidth": 2.2, "zorder": 4} if is_best else {"color": BLUE, "linewidth": 0.9}
        opacity = 1 if is_best else MIN_OPACITY + (1 - MIN_OPACITY) * line[-1] ** 2
        axes.plot(line, range(len(rows)), alpha=opacity, **style)
    axes.set(xlim=(-0.04, 1.04), ylim=(len(rows) - 0.45, -0.3), xticks=[])
    axes.set_yticks(range(len(rows)), [row.name for row in rows], color=INK)
    axes.tick_params(left=False)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _score_axis(trials: Sequence[TrialRecord]) -> SettingAxis:
    scores = [trial.score or 0.0 for trial in trials]
    low, high = score_limits(scores)
    low, high = max(low, min(scores)), max(scores)
    span = (high - low) or 1.0
    positions = [max(score - low, 0.0) / span for score in scores]
    return SettingAxis("score", positions, [(0, f"{low:.1%}"), (1, f"{high:.1%}")], is_categorical=False)


def _label_ticks(axes: Axes, row: int, setting: SettingAxis) -> None:
    box = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
    for place, label in setting.ticks:
        text = shorten(label, max(MAX_TICK_CHARACTERS // len(setting.ticks), 4))
        side = "left" if place < 0.02 else "right" if place > 0.98 else "center"
        axes.text(place, row + 0.12, text, ha=side, va="top", color=MUTED, size=SMALL, bbox=box, zorder=5)


def caption_parallel(result: SearchResult) -> str:
    """Return how to read the lines, and what the best trials have in common."""
    trials = setting_trials(result)
    num_best = max(len(trials) // TOP_SHARE, 3)
    ranges = "; ".join(_range(trials[:num_best], axis) for axis in setting_axes(trials) if _is_narrow(axis, num_best))
    return (
        f"Each line is one of {pluralize(len(trials), 'trial')} without probes: the stronger, the higher its score; "
        f"orange: the winner. The best {num_best} have {ranges or 'no setting in common'}."
    )


def _is_narrow(axis: SettingAxis, num_best: int) -> bool:
    """Whether the best trials have only some of a setting's values."""
    best = axis.positions[:num_best]
    return len(set(best)) < len(axis.ticks) if axis.is_categorical else max(best) - min(best) < NARROW


def _range(trials: Sequence[TrialRecord], axis: SettingAxis) -> str:
    """Return the values of a setting as text: ``lr 0.001 to 0.01``, or ``optimizer adamw or sgd``."""
    values = sorted({trial.settings[axis.name] for trial in trials})
    labels = [_label(axis.name, value) for value in values]
    if axis.is_categorical:
        return f"{axis.name} {' or '.join(labels)}"
    return f"{axis.name} {labels[0]} to {labels[-1]}"


def draw_slices(result: SearchResult) -> Figure:
    """Draw the score against each setting, in small charts with the same score axis."""
    trials = sorted(setting_trials(result), key=lambda trial: trial.number)  # else jitter would sort them by score
    settings = setting_axes(trials)
    num_rows = math.ceil(len(settings) / 2)
    figure, grid = new_grid(num_rows, 2, (FIGURE_SIZE[0], 0.7 + SLICE_INCHES * num_rows))
    charts = [axes for row in grid for axes in row]
    for axes, setting in zip(charts, settings, strict=False):
        _draw_slice(axes, setting, trials, result.winner.number)
    for axes in charts[len(settings) :]:
        axes.set_visible(False)
    figure.supylabel(SCORE, size=9.5, color=MUTED)
    draw_legend(charts[0], *charts[0].get_legend_handles_labels())
    return figure


def _draw_slice(axes: Axes, setting: SettingAxis, trials: Sequence[TrialRecord], winner: int) -> None:
    """Draw the score of each trial against a setting."""
    width = SLICE_JITTER / len(setting.ticks)
    positions = jitter(setting.positions, width) if setting.is_categorical else setting.positions
    scatter_by_origin(axes, zip(trials, positions, strict=True))
    for trial, x in zip(trials, positions, strict=True):
        if trial.number == winner:
            mark_winner(axes, x, trial.score or 0.0)
    labels = [shorten(label, MAX_SLOPED_CHARACTERS) for _, label in setting.ticks]
    is_long = sum(map(len, labels)) > MAX_SLICE_CHARACTERS
    slope = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if is_long else {}
    axes.set_xticks([place for place, _ in setting.ticks], labels, size=SMALL, **slope)
    low, high = score_limits([trial.score or 0.0 for trial in trials])
    axes.set(xlim=(-0.15, 1.15), ylim=(low, high + RING_MARGIN * (high - low)))
    axes.set_title(setting.name, size=9.5, color=INK)
    percent_axis(axes.yaxis)


def caption_slices(result: SearchResult) -> str:
    """Return how to read the small charts."""
    scores = [trial.score or 0.0 for trial in setting_trials(result)]
    return (
        "All other settings differ between the points, too, so a chart shows where good trials are and not the effect "
        f"of one setting alone; hollow: did not complete.{caption_outliers(scores)}"
    )
