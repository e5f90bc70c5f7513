"""Drawing the live view: a pure function of its state, the time, and the size of the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from data.text import pluralize
from tuning.common.formatting import (
    clock,
    format_lr,
    format_score,
    frozen_text,
    network_name,
    short_network,
)
from tuning.ui.live.state import LiveState, RunningTrial

if TYPE_CHECKING:
    from tuning.common.trial_record import TrialRecord

BARS = "▁▂▃▄▅▆▇█"
MAX_CURVE_WIDTH = 8  # characters
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
REFRESH_PER_S = 4  # redraws per second
MAX_TRIAL_ROWS = 8
OTHER_ROWS = 7  # the block's other lines, and two lines of the terminal above the block
MIN_HEIGHT_FOR_MARGIN = 4  # lines of the block
MAX_WIDTH = 100  # characters
MIN_FULL_WIDTH = 90  # for long curves and notes
BAR_WIDTH = 24  # characters

FILLED, FILLED_TIP, EMPTY = "━", "╸", "─"  # of a bar
NETWORK_WIDTH = 14  # characters
# After the row of a trial of that origin.
NOTES = {"champion": "champion", "probe": "probe", "rerun": "re-run", "default": "default"}

SCORE, CURVE_STYLE, DIM, BEST, BAD = "bold", "cyan", "dim", "bold green", "red"


def render(state: LiveState, now_s: float, width: int, height: int) -> RenderableType:
    """Return the block for a state: at most ``height - 1`` lines of at most ``width - 1`` characters."""
    width = max(1, min(width - 1, MAX_WIDTH))  # some terminals wrap a full line
    max_rows = max(1, min(MAX_TRIAL_ROWS, height - OTHER_ROWS))
    lines = [*_body(state, now_s, max_rows, width >= MIN_FULL_WIDTH), *_footer(state, now_s)]
    max_lines = max(1, height - 1)
    # The first line is empty: if another program prints below the block, as mlflow run does after Ctrl-C, that line
    # stays on screen.
    visible = lines[:max_lines] if max_lines < MIN_HEIGHT_FOR_MARGIN else [Text(), *lines][:max_lines]
    for line in visible:
        line.rstrip()
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return Group(*visible)


def _body(state: LiveState, now_s: float, max_rows: int, is_wide: bool) -> Iterator[Text]:
    """Yield the current stage or the running trials, then the best trial."""
    if state.stage:
        yield _stage_line(state, now_s)
    elif state.curve:
        yield Text.assemble(f"epoch {len(state.curve)}  ", (f"{state.curve[-1]:.4f}", SCORE), "  ", _curve(state.curve))
    else:
        yield from _running_trials(state, now_s, max_rows, is_wide)
    if state.best is not None:
        yield _best_line(state.best)


def _stage_line(state: LiveState, now_s: float) -> Text:
    elapsed_s = max(0.0, now_s - state.stage_started_s)
    spinner = SPINNER[int(now_s * REFRESH_PER_S) % len(SPINNER)]
    line = Text.assemble((spinner, CURVE_STYLE), (f" {clock(elapsed_s)}", DIM), f"  {state.stage}")
    if state.progress is None:
        return line
    done, total = state.progress.done, state.progress.total
    return line.append(f" {done:,} of {total:,}  ").append_text(_bar(done / total))


def _running_trials(state: LiveState, now_s: float, max_rows: int, is_wide: bool) -> Iterator[Text]:
    """Yield a header and a line per running trial; trials that do not fit are counted."""
    running = list(state.running.values())
    if not running:
        yield Text("no trial is running", DIM)
        return
    visible = running if len(running) <= max_rows else running[: max_rows - 1]
    scale = _score_range([row.trial for row in visible], state.best)
    max_curve_width = MAX_CURVE_WIDTH if is_wide else len("curve")
    max_epochs = max((row.trial.config.fit.max_epochs for row in visible), default=0)
    curve_width = min(max_curve_width, max(len("curve"), max_epochs))
    columns = f"trial epoch  time  left  score {'curve':{curve_width}} {'network':{NETWORK_WIDTH}}"
    yield Text(f"{columns}   px frozen      lr batch", DIM)
    for row in visible:
        line = _trial_line(row, now_s, scale, curve_width)
        yield line.append(f"  {NOTES.get(row.trial.origin, '')}", DIM) if is_wide else line
    if len(visible) < len(running):
        yield Text(f"and {pluralize(len(running) - len(visible), 'more trial')}", DIM)


def _trial_line(row: RunningTrial, now_s: float, scale: tuple[float, float], curve_width: int) -> Text:
    """Return the line of a running trial; the expected rest is from its epochs so far."""
    trial, config = row.trial, row.trial.config
    curve = sparkline(trial.scores, *scale, max_values=curve_width)
    left_s = row.seconds_left(now_s)
    return Text.assemble(
        f"{trial.number:>5} {f'{trial.epochs}/{config.fit.max_epochs}':>5} {clock(now_s - row.started_s):>5} ",
        f"{'-' if left_s is None else clock(left_s):>5} ",
        (f"{format_score(trial):>6}", SCORE),
        (f" {curve:{curve_width}} ", CURVE_STYLE),
        f"{short_network(trial, NETWORK_WIDTH):{NETWORK_WIDTH}} {config.preprocessing.image_size:>4} ",
        f"{frozen_text(trial):>6} {format_lr(config):>7} {config.batches.batch_size:>5}",
    )


def _best_line(best: TrialRecord) -> Text:
    network = f"{network_name(best)}, {best.config.preprocessing.image_size} px, {frozen_text(best)} frozen"
    return Text.assemble(("best ", BEST), (format_score(best), BEST), f" by trial {best.number}: {network}")


def _footer(state: LiveState, now_s: float) -> Iterator[Text]:
    """Yield the counts of trials and the remaining budget."""
    if state.plan is None:
        return
    yield Text(", ".join(_counts(state)), BAD if state.statuses.get("failed") else DIM)
    share, remaining = _budget(state, now_s)
    yield Text.assemble(_bar(share), f"  {remaining}")


def _counts(state: LiveState) -> Iterator[str]:
    plan = state.plan
    if plan is None:
        return
    if state.num_probes:
        yield f"probes {state.probes}/{state.num_probes} done"
    yield f"trials {state.finished} done" if plan.trials is None else f"trials {state.finished}/{plan.trials} done"
    if state.reruns:
        yield f"re-runs {state.reruns} done"
    for status in ("out of time", "pruned", "failed"):
        if count := state.statuses.get(status, 0):
            yield f"{count} {status}"


def _budget(state: LiveState, now_s: float) -> tuple[float, str]:
    """Return the used share of the budget and a text with the remaining time."""
    plan = state.plan
    trials_share = state.finished / plan.trials if plan and plan.trials else 0.0
    if plan is None or plan.ends_s is None:
        return min(1.0, trials_share), f"{clock(now_s - state.started_s)} elapsed"
    remaining_s = plan.ends_s - now_s
    time_share = (now_s - state.started_s) / max(1e-9, plan.ends_s - state.started_s)
    share = min(1.0, max(trials_share, time_share, 0.0))
    return share, f"{clock(remaining_s)} left" if remaining_s >= 0 else f"{clock(-remaining_s)} over the time budget"


def _bar(share: float) -> Text:
    """Return a bar that can be read without colors, and the share as a percentage."""
    share = min(1.0, max(0.0, share))
    filled = int(BAR_WIDTH * share)
    tip = FILLED_TIP if filled < BAR_WIDTH else ""
    left = EMPTY * (BAR_WIDTH - filled - len(tip))
    return Text.assemble((FILLED * filled + tip, CURVE_STYLE), (left, DIM), f" {share:>4.0%}")


def _curve(scores: Sequence[float]) -> tuple[str, str]:
    return sparkline(scores, min(scores), max(scores), max_values=MAX_CURVE_WIDTH), CURVE_STYLE


def _score_range(trials: Sequence[TrialRecord], best: TrialRecord | None) -> tuple[float, float]:
    """Return the lowest and the highest score of all curves, so that they share one scale."""
    scores = [score for trial in (*trials, *([best] if best is not None else [])) for score in trial.scores]
    return (min(scores), max(scores)) if scores else (0.0, 1.0)


def sparkline(values: Sequence[float], low: float, high: float, max_values: int) -> str:
    """Return the last ``max_values`` values as one character each, scaled from ``low`` to ``high``."""
    span = (high - low) or 1.0
    steps = len(BARS) - 1
    return "".join(BARS[round(steps * min(1.0, max(0.0, (value - low) / span)))] for value in values[-max_values:])
