"""The charts of a search's trials: history, timeline, learning curves, losses of the winner, freeze depth."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from data.text import pluralize
from tuning.common.trial_record import TrialRecord
from tuning.reporting.drawing import (
    MANY_TRIALS,
    ORIGINS,
    SCORE,
    active_minutes,
    caption_outliers,
    draw_legend,
    jitter,
    mark_winner,
    new_figure,
    percent_axis,
    scatter_by_origin,
    score_limits,
)
from tuning.reporting.theme import BLUE, FIGURE_SIZE, INK, MUTED, ORANGE, PAPER, RED
from tuning.search.search_result import SearchResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

END_MARKERS = {
    "pruned": ("x", MUTED),
    "out of time": ("|", MUTED),
    "failed": ("v", RED),
}  # marker and color at the end of a curve
TOP_CURVES = 5  # of the best trials, drawn whatever their origin
MAX_CURVES = 40  # of the best trials; more hide each other
MINUTES = "minutes since the first trial started"
LANE_INCHES = 0.5  # height of a lane of the timeline
PALE = 0.35  # opacity of a trial that did not complete
DIGIT_SHARE = 0.022  # width of a digit on the timeline; shorter bars do not carry their trial's number


def draw_history(result: SearchResult) -> Figure:
    """Draw the scores by the time of completion, or by number if it is unknown, and the best one so far."""
    figure, axes = new_figure()
    eligible, minutes = [trial for trial in result.trials if trial.is_eligible], active_minutes(result.trials)
    if any(trial.trial_uid not in minutes for trial in eligible):
        minutes = {}
    points = [(trial, minutes[trial.trial_uid][1] if minutes else float(trial.number)) for trial in eligible]
    points.sort(key=lambda point: point[1])
    scatter_by_origin(axes, points)
    scores = [trial.score or 0.0 for trial, _ in points]
    best = list(itertools.accumulate(scores, max))
    axes.plot([x for _, x in points], best, color=ORANGE, drawstyle="steps-post", label="best so far", zorder=2)
    axes.set(xlabel=MINUTES if minutes else "trial", ylabel=SCORE, ylim=score_limits(scores))
    axes.locator_params(axis="x", integer=not minutes or points[-1][1] > 4)
    percent_axis(axes.yaxis)
    draw_legend(axes, *axes.get_legend_handles_labels())
    return figure


def caption_history(result: SearchResult) -> str:
    """Return the number of scores and the winner's."""
    best, scores = result.winner, [trial.score or 0.0 for trial in result.trials if trial.is_eligible]
    return (
        f"{len(scores)} of {pluralize(len(result.trials), 'trial')} have a score; hollow: did not complete; "
        f"re-runs are not shown. The winner, trial {best.number}, reached {best.score or 0.0:.1%}."
        f"{caption_outliers(scores)}"
    )


def draw_timeline(result: SearchResult) -> Figure:
    """Draw a bar for each trial from its start to its end; trials that overlap are in different lanes."""
    from matplotlib.patches import Patch

    spans = active_minutes(result.trials)
    lanes = pack_lanes(spans)
    end = max(end for _, end in spans.values())
    num_lanes = max(lanes.values()) + 1
    height = min(1.4 + LANE_INCHES * num_lanes, 2 * FIGURE_SIZE[1])
    figure, axes = new_figure((FIGURE_SIZE[0], height))
    for trial in result.trials:
        if trial.trial_uid not in spans:
            continue
        start, stop = spans[trial.trial_uid]
        lane, color, is_complete = lanes[trial.trial_uid], ORIGINS[trial.origin].color, trial.status == "complete"
        axes.barh(lane, stop - start, 0.8, start, color=color, alpha=1 if is_complete else PALE, linewidth=0, zorder=2)
        if len(spans) <= MANY_TRIALS:  # a gap between the bars; it would hide the bars of more trials
            axes.vlines(stop, lane - 0.4, lane + 0.4, color=PAPER, linewidth=1.2, zorder=2)
        if stop - start > len(str(trial.number)) * DIGIT_SHARE * end:
            text = {"color": PAPER if is_complete else INK, "ha": "center", "va": "center", "size": 8.5}
            axes.text((start + stop) / 2, lane, str(trial.number), **text)
    axes.set(xlabel=MINUTES, yticks=range(num_lanes), ylim=(num_lanes - 0.4, -0.6))
    axes.set_yticklabels([f"slot {lane + 1}" for lane in range(num_lanes)])
    axes.grid(visible=False, axis="y")
    styles = [style for origin, style in ORIGINS.items() if any(trial.origin == origin for trial in result.trials)]
    draw_legend(axes, [Patch(color=style.color) for style in styles], [style.label for style in styles])
    return figure


def pack_lanes(spans: dict[str, tuple[float, float]]) -> dict[str, int]:
    """Return a lane for each span (start, end), the first in which no earlier span overlaps."""
    lane_ends: list[float] = []
    lanes = {}
    for key, (start, end) in sorted(spans.items(), key=lambda item: item[1]):
        lane = next((lane for lane, lane_end in enumerate(lane_ends) if lane_end <= start), len(lane_ends))
        lane_ends[lane : lane + 1] = [end]
        lanes[key] = lane
    return lanes


def caption_timeline(result: SearchResult) -> str:
    """Return the number of trials and the busiest moment."""
    spans = active_minutes(result.trials)
    parallel = max(pack_lanes(spans).values()) + 1
    return (
        f"{pluralize(len(spans), 'trial')}, up to {parallel} in parallel, numbered as in the table. Pale: pruned, "
        "out of time or failed."
    )


def curve_trials(result: SearchResult) -> list[TrialRecord]:
    """Return the trials of the learning curves, best first: those that are no probes or re-runs, and the best ones."""
    shown = [
        trial
        for rank, trial in enumerate(result.ranked)
        if trial.scores and (rank < TOP_CURVES or trial.counts_as_trial)
    ][:MAX_CURVES]
    is_winner_shown = any(trial.number == result.winner.number for trial in shown)
    return shown if is_winner_shown else [*shown, result.winner]


def draw_curves(result: SearchResult) -> Figure:
    """Draw the score by epoch of the winner and of the trials that it competed with."""
    from matplotlib.lines import Line2D

    figure, axes = new_figure()
    trials = curve_trials(result)
    for trial in trials:
        curve = trial.scores
        is_best = trial.number == result.winner.number
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
    draw_legend(axes, handles, ["winner", "complete", "pruned", "out of time"])
    axes.set(xlabel="epoch", ylabel=SCORE)
    axes.locator_params(axis="x", integer=True)
    percent_axis(axes.yaxis)
    return figure


def caption_curves(result: SearchResult) -> str:
    """Return which trials are shown and where the winner peaked."""
    shown, best = curve_trials(result), result.winner
    pruned, out_of_time = (sum(trial.status == status for trial in shown) for status in ("pruned", "out of time"))
    return (
        f"{len(shown)} of {pluralize(len(result.trials), 'trial')}: the {TOP_CURVES} best and those that are neither "
        f"probes nor re-runs, at most {MAX_CURVES}; {pruned} pruned, {out_of_time} out of time. The winner, trial "
        f"{best.number}, has its best epoch, by the mean of three, at {best.best_epoch} of {best.epochs}."
    )


def has_losses(trial: TrialRecord) -> bool:
    """Whether a trial has at least two epochs with both losses."""
    return trial.epochs > 1 and all({"train_loss", "val_loss"} <= set(metrics) for metrics in trial.history)


def draw_losses(trial: TrialRecord) -> Figure:
    """Draw the training and the validation loss of a trial by epoch."""
    figure, axes = new_figure()
    epochs = range(1, trial.epochs + 1)
    axes.plot(epochs, [metrics["train_loss"] for metrics in trial.history], color=BLUE, marker="o", label="training")
    losses = [metrics["val_loss"] for metrics in trial.history]
    axes.plot(epochs, losses, color=ORANGE, marker="D", linestyle="--", label="validation")
    axes.axvline(trial.best_epoch, color=MUTED, linewidth=1, linestyle=":", label="best epoch")
    axes.set(xlabel="epoch", ylabel="loss")
    axes.set_ylim(bottom=0)
    axes.locator_params(axis="x", integer=True)
    draw_legend(axes, *axes.get_legend_handles_labels())
    return figure


def caption_losses(trial: TrialRecord) -> str:
    """Return the losses of the best epoch, and how to read them."""
    training, validation = trial.metrics["train_loss"], trial.metrics["val_loss"]
    note = " The training loss is that of augmented images." if trial.config.batches.augmentation != "none" else ""
    return (
        f"At the best epoch, {trial.best_epoch}: training {training:.3f}, validation {validation:.3f}. A validation "
        f"loss that rises while the training loss falls means overfitting.{note}"
    )


def draw_freeze(result: SearchResult) -> Figure:
    """Draw the score by the frozen share of the network's blocks."""
    figure, axes = new_figure()
    trials = [trial for trial in result.trials if trial.is_eligible and frozen_share(trial) is not None]
    positions = jitter([frozen_share(trial) or 0.0 for trial in trials], 0.05)
    scatter_by_origin(axes, zip(trials, positions, strict=True))
    for trial, x in zip(trials, positions, strict=True):
        if trial.number == result.winner.number:
            mark_winner(axes, x, trial.score or 0.0)
    if trials:
        axes.set_ylim(score_limits([trial.score or 0.0 for trial in trials]))
    axes.set(xlabel="frozen share of the network's blocks", ylabel=SCORE, xlim=(-0.05, 1.05))
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    draw_legend(axes, *axes.get_legend_handles_labels())
    return figure


def frozen_share(trial: TrialRecord) -> float | None:
    """Return the share of a trial's blocks that are frozen; None if unknown."""
    depth, blocks = trial.runtime_info.get("freeze_depth"), trial.runtime_info.get("blocks")
    return float(depth) / float(blocks) if depth is not None and blocks else None


def caption_freeze(result: SearchResult) -> str:
    """Return how to read the axis, and the winner's share."""
    share = frozen_share(result.winner)
    winner = "" if share is None else f" The winner froze {share:.0%} of the blocks."
    scores: Sequence[float] = [trial.score or 0.0 for trial in result.trials if trial.is_eligible]
    return (
        f"At 0% the whole network is trained, at 100% only the head; points of the same share are spread sideways, "
        f"hollow if the trial did not complete.{winner}{caption_outliers(scores)}"
    )
