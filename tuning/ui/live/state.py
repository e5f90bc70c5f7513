"""What the live view shows, as a value, and what each event makes of it; no terminal and no clock in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from tuning.common.events import (
    EpochEnded,
    Event,
    ProgressUpdated,
    SearchPlanned,
    StageStarted,
    TrainingEpochEnded,
    TrialEnded,
    TrialStarted,
)

if TYPE_CHECKING:
    from tuning.common.trial_record import TrialRecord


class RunningTrial(NamedTuple):
    """A trial that runs, and when it began, in seconds since 1970."""

    trial: TrialRecord
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
    stage: str = ""
    stage_began_s: float = 0.0
    progress: ProgressUpdated | None = None
    plan: SearchPlanned | None = None
    running: Mapping[str, RunningTrial] = field(default_factory=dict)
    ended_best: TrialRecord | None = None
    tried: int = 0
    probes: int = 0
    reruns: int = 0
    pruned: int = 0
    failed: int = 0
    curve: tuple[float, ...] = ()

    @cached_property
    def best(self) -> TrialRecord | None:
        """The best of those that ended or run, by what the winner is chosen by; None before the first epoch ended."""
        known = [self.ended_best] if self.ended_best else []
        scored = (result for result in (*known, *(one.trial for one in self.running.values())) if result.is_eligible)
        return max(scored, key=lambda result: result.sort_key, default=None)


def reduce(state: LiveState, event: Event, now_s: float) -> LiveState:
    """Return the state after an event that came at ``now_s``, in seconds since 1970."""
    changes: dict[str, Any] = {"part": "", "progress": None}
    match event:
        case StageStarted(part):
            changes |= {"part": part, "part_began_s": now_s}
        case ProgressUpdated(what):
            changes |= {"part": what, "progress": event}
            changes["part_began_s"] = state.stage_began_s if state.stage == what else now_s
        case SearchPlanned():
            changes |= {"plan": event, "tried": event.tried, "ended_best": event.best}
        case TrialStarted(result) | EpochEnded(result, _):
            began_s = state.running[result.trial_uid].began_s if result.trial_uid in state.running else now_s
            changes |= {"running": {**state.running, result.trial_uid: RunningTrial(result, began_s)}}
        case TrialEnded(result):
            return _without(state, result)
        case TrainingEpochEnded():
            changes |= {"curve": (*state.curve, event.score)}
        case _:
            return state
    return replace(state, **changes)


def _without(state: LiveState, result: TrialRecord) -> LiveState:
    """Return the state once a trial has ended."""
    running = {uid: one for uid, one in state.running.items() if uid != result.trial_uid}
    is_best = result.is_eligible and (state.ended_best is None or result.sort_key > state.ended_best.sort_key)
    return replace(
        state,
        running=running,
        ended_best=result if is_best else state.ended_best,
        tried=state.tried + (result.origin not in {"probe", "rerun"}),
        probes=state.probes + (result.origin == "probe"),
        reruns=state.reruns + (result.origin == "rerun"),
        pruned=state.pruned + (result.status == "pruned"),
        failed=state.failed + (result.status == "failed"),
    )
