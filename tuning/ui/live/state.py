"""What the live view shows, as a value, and what each event makes of it; no terminal and no clock in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from tuning.common.events import Entered, EpochEnded, Event, Planned, Progressed, Trained, TrialEnded, TrialStarted

if TYPE_CHECKING:
    from tuning.common.trial_record import TrialResult


class Running(NamedTuple):
    """A trial that runs, and when it began, in seconds since 1970."""

    result: TrialResult
    began_s: float


@dataclass(frozen=True)
class LiveState:
    """How far a search, or a training, is.

    Attributes:
        began_s: when the command began, in seconds since 1970.
        part: what takes a while now; empty while trials run.
        part_began_s: when it began.
        progress: how far it is, where that is known.
        plan: of the trials, once it is made.
        running: trials by their uid, in the order in which they began.
        ended_best: the best of those that ended; finals aside.
        tried: configurations that ended, those before the search went on among them.
        probes: linear probes that ended.
        finals: finals that ended.
        pruned: trials that were stopped.
        failed: trials that failed.
        curve: of ``train``: the score of each epoch.
    """

    began_s: float
    part: str = ""
    part_began_s: float = 0.0
    progress: Progressed | None = None
    plan: Planned | None = None
    running: Mapping[str, Running] = field(default_factory=dict)
    ended_best: TrialResult | None = None
    tried: int = 0
    probes: int = 0
    finals: int = 0
    pruned: int = 0
    failed: int = 0
    curve: tuple[float, ...] = ()

    @cached_property
    def best(self) -> TrialResult | None:
        """The best of those that ended or run, by what the winner is chosen by; None before the first epoch ended."""
        known = [self.ended_best] if self.ended_best else []
        scored = (result for result in (*known, *(one.result for one in self.running.values())) if result.counts)
        return max(scored, key=lambda result: result.rank, default=None)


def after(state: LiveState, event: Event, now_s: float) -> LiveState:
    """Return the state after an event that came at ``now_s``, in seconds since 1970."""
    changes: dict[str, Any] = {"part": "", "progress": None}
    match event:
        case Entered(part):
            changes |= {"part": part, "part_began_s": now_s}
        case Progressed(what):
            changes |= {"part": what, "progress": event}
            changes["part_began_s"] = state.part_began_s if state.part == what else now_s
        case Planned():
            changes |= {"plan": event, "tried": event.tried, "ended_best": event.best}
        case TrialStarted(result) | EpochEnded(result, _):
            began_s = state.running[result.trial_uid].began_s if result.trial_uid in state.running else now_s
            changes |= {"running": {**state.running, result.trial_uid: Running(result, began_s)}}
        case TrialEnded(result):
            return _without(state, result)
        case Trained():
            changes |= {"curve": (*state.curve, event.score)}
        case _:
            return state
    return replace(state, **changes)


def _without(state: LiveState, result: TrialResult) -> LiveState:
    """Return the state once a trial has ended."""
    running = {uid: one for uid, one in state.running.items() if uid != result.trial_uid}
    is_best = result.counts and (state.ended_best is None or result.rank > state.ended_best.rank)
    return replace(
        state,
        running=running,
        ended_best=result if is_best else state.ended_best,
        tried=state.tried + (result.origin not in {"probe", "final"}),
        probes=state.probes + (result.origin == "probe"),
        finals=state.finals + (result.origin == "final"),
        pruned=state.pruned + (result.status == "pruned"),
        failed=state.failed + (result.status == "failed"),
    )
