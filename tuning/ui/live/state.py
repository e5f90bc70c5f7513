"""The state of the live view as a value, and the reducer that applies events to it; no terminal, no clock."""

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
    """A running trial, its start and the end of its last epoch as Unix times in seconds."""

    trial: TrialRecord
    started_s: float
    epoch_ended_s: float

    def seconds_left(self, now_s: float) -> float | None:
        """Return the expected rest of the trial, from its epochs so far; None before the first."""
        trial = self.trial
        if not trial.epochs or not trial.seconds:
            return None
        epochs_left = trial.config.fit.max_epochs - trial.epochs
        return max(0.0, epochs_left * trial.seconds / trial.epochs - (now_s - self.epoch_ended_s))


@dataclass(frozen=True)
class LiveState:
    """The progress of a search or a training; times are Unix times in seconds.

    ``stage`` is empty while trials run. ``running`` is by uid, in the order of start. ``finished`` counts trials
    without probes and re-runs. The counts include the trials from before a resume; ``num_probes`` is the number of all
    probes. ``best_finished`` excludes re-runs. ``curve`` has the score of each epoch of ``train``.
    """

    started_s: float
    stage: str = ""
    stage_started_s: float = 0.0
    progress: ProgressUpdated | None = None
    plan: SearchPlanned | None = None
    running: Mapping[str, RunningTrial] = field(default_factory=dict)
    best_finished: TrialRecord | None = None
    finished: int = 0
    probes: int = 0
    num_probes: int = 0
    reruns: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    curve: tuple[float, ...] = ()

    @cached_property
    def best(self) -> TrialRecord | None:
        """The best finished or running trial; None before the first epoch."""
        trials = [*([self.best_finished] if self.best_finished else []), *(row.trial for row in self.running.values())]
        return max((trial for trial in trials if trial.is_eligible), key=lambda trial: trial.sort_key, default=None)


def reduce(state: LiveState, event: Event, now_s: float) -> LiveState:
    """Return the state after an event at the time ``now_s``, as Unix time in seconds."""
    changes: dict[str, Any] = {"stage": "", "progress": None}
    match event:
        case StageStarted(stage):
            changes |= {"stage": stage, "stage_started_s": now_s}
        case ProgressUpdated(task):
            # Other work follows a task that is done: a full bar would look as if the command hung.
            changes |= {"stage": task, "progress": event if event.done < event.total else None}
            changes["stage_started_s"] = state.stage_started_s if state.stage == task else now_s
        case SearchPlanned():
            state = _with_previous(state, event)
        case TrialStarted(trial) | EpochEnded(trial, _):
            started_s = state.running[trial.trial_uid].started_s if trial.trial_uid in state.running else now_s
            changes |= {"running": {**state.running, trial.trial_uid: RunningTrial(trial, started_s, now_s)}}
        case TrialEnded(trial):
            return _with_finished(state, trial)
        case TrainingEpochEnded():
            changes |= {"curve": (*state.curve, event.score)}
        case _:
            return state
    return replace(state, **changes)


def _with_previous(state: LiveState, plan: SearchPlanned) -> LiveState:
    """Return the state with a plan, and the trials that had ended before it."""
    for trial in plan.previous:
        state = _with_finished(state, trial)
    return replace(
        state,
        plan=plan,
        finished=plan.finished,
        best_finished=plan.best,
        num_probes=state.probes + plan.probes,
    )


def _with_finished(state: LiveState, trial: TrialRecord) -> LiveState:
    """Return the state after a trial has finished."""
    running = {uid: row for uid, row in state.running.items() if uid != trial.trial_uid}
    is_best = trial.is_eligible and (state.best_finished is None or trial.sort_key > state.best_finished.sort_key)
    return replace(
        state,
        running=running,
        best_finished=trial if is_best else state.best_finished,
        finished=state.finished + trial.counts_as_trial,
        probes=state.probes + trial.is_probe,
        reruns=state.reruns + (trial.origin == "rerun"),
        statuses={**state.statuses, trial.status: state.statuses.get(trial.status, 0) + 1},
    )
