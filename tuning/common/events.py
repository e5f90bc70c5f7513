"""What happens while a search or a training runs, as values: the one stream that every view is told.

A view takes the events that matter to it and leaves the others; ``tuning.common.event_bus`` hands them over. What becomes
of them as JSON lines is in ``tuning.ui.jsonl_renderer`` and in docs/events.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from data.audit.report import Audit
    from tuning.common.promotion_types import Candidate, Promotion
    from tuning.common.trial_record import TrialRecord, TrialReport


@dataclass(frozen=True)
class Message:
    """A sentence for a person; ``matters`` of one that is an error's or asks to do something."""

    text: str
    is_warning: bool = False


@dataclass(frozen=True)
class TablesShown:
    """Tables and lines for a person, as rich prints them; all that they hold is in other events too."""

    parts: tuple[object, ...]


@dataclass(frozen=True)
class ProgressUpdated:
    """``done`` of ``of`` things are done, as in 'resizing pictures'."""

    task: str
    done: int
    total: int


@dataclass(frozen=True)
class StageStarted:
    """A part of the work has begun that takes a while, as in 'starting Ray'; the part before has ended."""

    stage: str


@dataclass(frozen=True)
class AuditCompleted:
    """The data set was looked at."""

    audit: Audit


@dataclass(frozen=True)
class SearchPlanned:
    """The trials are about to begin.

    Attributes:
        run_id: of the parent run.
        text: the plan as a sentence.
        trials: how many configurations there are to try, those before among them; None: as many as the time allows.
        probes: linear probes of the sweep that are to come.
        tried: configurations that were tried before, by a search that goes on.
        max_epochs: of a trial.
        at_once: trials side by side.
        ends_s: when the command should have ended, in seconds since 1970; None: when the trials are through.
        best: of the trials before.
    """

    run_id: str
    text: str
    trials: int | None
    probes: int
    tried: int
    max_epochs: int
    max_concurrent: int
    ends_s: float | None
    best: TrialRecord | None = None


@dataclass(frozen=True)
class TrialStarted:
    """A trial was handed to a worker, which may still have to start."""

    trial: TrialRecord


@dataclass(frozen=True)
class EpochEnded:
    """A trial has ended an epoch, which ``result`` already holds."""

    trial: TrialRecord
    report: TrialReport


@dataclass(frozen=True)
class TrialEnded:
    """A trial has ended: complete, pruned or failed, with its reason."""

    trial: TrialRecord


@dataclass(frozen=True)
class TrainingEpochEnded:
    """The one configuration of ``train`` has ended an epoch."""

    report: TrialReport

    @property
    def score(self) -> float:
        """Its validation balanced accuracy."""
        return self.report.metrics["val_balanced_accuracy"]


@dataclass(frozen=True)
class CandidateEvaluated:
    """The winner was measured on the test pictures; ``baseline`` is what raw pixels alone reach, where it is known."""

    candidate: Candidate
    baseline: float | None


@dataclass(frozen=True)
class PromotionDecided:
    """The registry's decision about the winner."""

    candidate: Candidate
    version: int
    promotion: Promotion


@dataclass(frozen=True)
class ReportWritten:
    """The report was written to ``file``."""

    file: Path


@dataclass(frozen=True)
class CommandEnded:
    """The command has ended; the last event. ``problems`` are the sentences of a user's mistake or a failure."""

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
