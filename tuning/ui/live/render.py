"""The live view's picture: a pure function of its state, the time, and the size of the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from tuning.common.formatting import format_score, network_name
from tuning.ui.live.state import LiveState

if TYPE_CHECKING:
    from tuning.common.trial_record import TrialRecord

BARS = "▁▂▃▄▅▆▇█"
CURVE = 10  # letters of a curve at most
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
REFRESH_PER_S = 4  # of the spinner: as often as the terminal is drawn anew
MOST_ROWS = 8  # of trials that run
OTHER_ROWS = 7  # the block's other lines, and two of the terminal's for what is above it
SMALL = 4  # lines of a terminal in which none is spent on space
MOST_WIDTH = 100  # letters: a longer bar says no more
BAR = 24  # letters of a bar

KINDS = {"probe": "probe of ", "rerun": "again: "}  # before the network of a trial of that origin

SCORE, CURVE_STYLE, DIM, BEST, BAD = "bold", "cyan", "dim", "bold green", "red"


def render(state: LiveState, now_s: float, width: int, height: int) -> RenderableType:
    """Return the picture of a state: at most ``height - 1`` lines of at most ``width - 1`` letters.

    Args:
        state: what is shown.
        now_s: the time in seconds since 1970.
        width: letters of a line of the terminal.
        height: lines of the terminal.
    """
    width = max(1, min(width - 1, MOST_WIDTH))  # a full line would be wrapped by some terminals
    rows = max(1, min(MOST_ROWS, height - OTHER_ROWS))
    lines = [*_body(state, now_s, rows), *_foot(state, now_s)]
    room = max(1, height - 1)
    # Whatever another program writes below the block, as mlflow run does after Ctrl-C, leaves the block's first line
    # where it is: so that is an empty one.
    drawn = lines[:room] if room < SMALL else [Text(), *lines][:room]
    for line in drawn:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return Group(*drawn)


def _body(state: LiveState, now_s: float, rows: int) -> Iterator[Text]:
    """Yield what goes on: a part of the work, or trials that run; then the best."""
    if state.stage:
        yield _part_line(state, now_s)
    elif state.curve:
        yield Text.assemble(f"epoch {len(state.curve)}  ", (f"{state.curve[-1]:.4f}", SCORE), "  ", _curve(state.curve))
    else:
        yield from _running(state, now_s, rows)
    if state.best is not None:
        yield _best_line(state.best)


def _part_line(state: LiveState, now_s: float) -> Text:
    taken = max(0.0, now_s - state.stage_began_s)
    turn = SPINNER[int(now_s * REFRESH_PER_S) % len(SPINNER)]
    line = Text.assemble((turn, CURVE_STYLE), (f" {clock(taken)}", DIM), f"  {state.stage}")
    if state.progress is None:
        return line
    done, of = state.progress.done, state.progress.total
    return line.append(f" {done:,} of {of:,}  ").append_text(_bar(done / of if of else 1.0))


def _running(state: LiveState, now_s: float, rows: int) -> Iterator[Text]:
    """Yield a head line and a line for each trial that runs, of many the first."""
    every = list(state.running.values())
    if not every:
        yield Text("no trial runs at the moment", DIM)
        return
    shown = every if len(every) <= rows else every[: rows - 1]
    scale = _scale([one.trial for one in shown], state.best)
    letters = min(CURVE, max([len("curve"), *(one.trial.config.fit.max_epochs for one in shown)]))
    yield Text(f"trial  epoch   time   score  {'curve':{letters}}  network, size, frozen blocks", DIM)
    for one in shown:
        yield _trial_line(one.trial, clock(now_s - one.began_s), scale, letters)
    if len(shown) < len(every):
        yield Text(f"and {len(every) - len(shown)} trials more", DIM)


def _trial_line(result: TrialRecord, time: str, scale: tuple[float, float], letters: int) -> Text:
    """Return a trial that runs: number, epoch, time, score of its best epoch, curve, and what it is."""
    config = result.config
    curve = sparkline(result.scores, *scale, most=letters)
    network = f"{network_name(result)} {config.preprocessing.image_size} px"
    return Text.assemble(
        f"{result.number:>5}  {f'{result.epochs}/{config.fit.max_epochs}':>5}  {time:>5}  ",
        (f"{format_score(result):>6}", SCORE),
        (f"  {curve:{letters}}  ", CURVE_STYLE),
        f"{KINDS.get(result.origin, '')}{network}, {_frozen(result)}",
    )


def _frozen(result: TrialRecord) -> str:
    facts = result.runtime_info
    if "freeze_depth" in facts:
        return f"{facts['freeze_depth']}/{facts.get('blocks', '?')}"
    return f"{result.config.network.freeze_fraction:.0%}"


def _best_line(best: TrialRecord) -> Text:
    network = f"{network_name(best)} at {best.config.preprocessing.image_size} px, {_frozen(best)} frozen"
    return Text.assemble(("best ", BEST), (format_score(best), BEST), f" by trial {best.number}: {network}")


def _foot(state: LiveState, now_s: float) -> Iterator[Text]:
    """Yield the counts, and what is left of the budget."""
    if state.plan is None:
        return
    yield Text(", ".join(_counts(state)), BAD if state.failed else DIM)
    share, left = _budget(state, now_s)
    yield Text.assemble(_bar(share), f"  {left}")


def _counts(state: LiveState) -> Iterator[str]:
    plan = state.plan
    if plan is None:
        return
    if plan.probes:
        yield f"{state.probes} of {plan.probes} probes"
    yield f"{state.tried} of {plan.trials} trials" if plan.trials is not None else f"{state.tried} trials"
    if state.reruns:
        yield f"{state.reruns} finals"
    yield f"{state.pruned} pruned"
    yield f"{state.failed} failed"


def _budget(state: LiveState, now_s: float) -> tuple[float, str]:
    """Return which share of the budget is spent, and what is left in words."""
    plan = state.plan
    by_trials = state.tried / plan.trials if plan and plan.trials else 0.0
    if plan is None or plan.ends_s is None:
        return min(1.0, by_trials), f"{clock(now_s - state.began_s)} so far"
    left_s = plan.ends_s - now_s
    by_time = (now_s - state.began_s) / max(1e-9, plan.ends_s - state.began_s)
    share = min(1.0, max(by_trials, by_time, 0.0))
    return share, f"{clock(left_s)} left" if left_s >= 0 else f"{clock(-left_s)} over the time that was given"


def _bar(share: float) -> Text:
    full = round(BAR * min(1.0, max(0.0, share)))
    return Text.assemble(("━" * full, CURVE_STYLE), ("━" * (BAR - full), DIM))


def _curve(scores: Sequence[float]) -> tuple[str, str]:
    return sparkline(scores, min(scores), max(scores), most=CURVE), CURVE_STYLE


def _scale(results: Sequence[TrialRecord], best: TrialRecord | None) -> tuple[float, float]:
    """Return the lowest and the highest score of what is drawn, so that the curves can be held against each other."""
    every = [*results, *([best] if best is not None else [])]
    scores = [score for result in every for score in result.scores]
    return (min(scores), max(scores)) if scores else (0.0, 1.0)


def sparkline(values: Sequence[float], low: float, high: float, most: int) -> str:
    """Return a curve as one letter for each value, drawn between ``low`` and ``high``; of many values the last ones."""
    span = (high - low) or 1.0
    steps = len(BARS) - 1
    return "".join(BARS[round(steps * min(1.0, max(0.0, (value - low) / span)))] for value in values[-most:])


def clock(seconds: float) -> str:
    """Return a time as minutes and seconds, and hours where there are any."""
    whole = int(max(0.0, seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
