"""Events of a search or a training run, as values.

``tuning.common.event_bus`` passes them to its renderers, which shows those that it needs. Their JSON form is
defined in ``tuning.ui.jsonl_renderer`` and described in docs/events.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tuning.common.names import OBJECTIVE_METRIC

if TYPE_CHECKING:
    from data.audit.report import Audit
    from tuning.common.promotion_types import Candidate, Promotion
    from tuning.common.trial_record import TrialRecord, TrialReport


@dataclass(frozen=True)
class Message:
    """A message to the user; ``is_warning`` marks an error or something that the user must do."""

    text: str
    is_warning: bool = False


@dataclass(frozen=True)
class TablesShown:
    """Tables and lines for the user, printed by rich; other events hold the same values."""

    parts: tuple[object, ...]


@dataclass(frozen=True)
class ProgressUpdated:
    """``done`` of ``total`` steps of ``task`` are done; a task is for example 'resizing images'."""

    task: str
    done: int
    total: int


@dataclass(frozen=True)
class StageStarted:
    """A stage that takes a while has started, for example 'starting Ray'; the previous stage has ended."""

    stage: str


@dataclass(frozen=True)
class AuditCompleted:
    """The audit of the data set is complete."""

    audit: Audit


@dataclass(frozen=True)
class SearchPlanned:
    """The search is about to start its trials.

    Attributes:
        run_id: the ID of the parent run.
        text: the plan as text.
        trials: the total number of trials, including those of a resumed search; None: limited by time only.
        probes: the number of linear probes still to run.
        finished: the number of trials that a resumed search had finished before, without probes and re-runs.
        max_epochs: the maximum number of epochs of a trial.
        max_concurrent: the maximum number of concurrent trials.
        ends_s: the deadline of the command as Unix time in seconds; None: no time limit.
        best: the best trial so far of a resumed search.
    """

    run_id: str
    text: str
    trials: int | None
    probes: int
    finished: int
    max_epochs: int
    max_concurrent: int
    ends_s: float | None
    best: TrialRecord | None = None


@dataclass(frozen=True)
class TrialStarted:
    """A trial was assigned to a worker, which may still be starting."""

    trial: TrialRecord


@dataclass(frozen=True)
class EpochEnded:
    """A trial has completed an epoch, which ``trial`` already contains."""

    trial: TrialRecord
    report: TrialReport


@dataclass(frozen=True)
class TrialEnded:
    """A trial has ended as complete, out of time, pruned or failed, with a reason."""

    trial: TrialRecord


@dataclass(frozen=True)
class TrainingEpochEnded:
    """The single configuration of ``train`` has completed an epoch."""

    report: TrialReport

    @property
    def score(self) -> float:
        """The validation balanced accuracy."""
        return self.report.metrics[OBJECTIVE_METRIC]


@dataclass(frozen=True)
class CandidateEvaluated:
    """The winner was evaluated on the test images; ``baseline`` is the accuracy of raw pixels, None if unknown."""

    candidate: Candidate
    baseline: float | None


@dataclass(frozen=True)
class PromotionDecided:
    """The promotion decision about the winner."""

    candidate: Candidate
    version: int
    promotion: Promotion


@dataclass(frozen=True)
class ReportWritten:
    """The report was written to ``file``."""

    file: Path


@dataclass(frozen=True)
class CommandEnded:
    """The command has ended; this is the last event. ``problems`` are the error messages."""

    exit_status: int
    problems: tuple[str, ...] = ()


Event: TypeAlias = (
    Message
    | TablesShown
    | ProgressUpdated
    | StageStarted
    | AuditCompleted
    | SearchPlanned
    | TrialStarted
    | EpochEnded
    | TrialEnded
    | TrainingEpochEnded
    | CandidateEvaluated
    | PromotionDecided
    | ReportWritten
    | CommandEnded
)
