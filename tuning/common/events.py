"""Events of a search or a training run, and the bus that passes them to the renderers.

A command opens a bus (``tuning.ui.session.open_event_bus``) and passes it to its workflow. Code below the workflows
does not know it: it logs with ``logging``, and the session shows these records as messages, or as stages if they are
logged with ``log_stage``. The JSON form of the events is defined in ``tuning.ui.jsonl_renderer`` and described in
docs/events.md.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from tuning.common.names import OBJECTIVE_METRIC

if TYPE_CHECKING:
    from data.audit.report import Audit
    from tuning.common.promotion_types import Candidate, Promotion
    from tuning.common.trial_record import TrialRecord, TrialReport


STAGE_ATTRIBUTE = "is_stage"  # of a log record that names a stage


def log_stage(logger: logging.Logger, stage: str) -> None:
    """Log the start of a stage that takes a while, in code that does not know the bus."""
    logger.info(stage, extra={STAGE_ATTRIBUTE: True})


class Event:
    """The base class of the events."""


@dataclass(frozen=True)
class Message(Event):
    """A message to the user; ``is_warning`` marks an error or something that the user must do."""

    text: str
    is_warning: bool = False


@dataclass(frozen=True)
class TablesShown(Event):
    """Tables and lines for the user, printed by rich; other events hold the same values.

    ``is_result`` marks the final result, which is also shown in ``quiet`` mode.
    """

    parts: tuple[object, ...]
    is_result: bool = False


@dataclass(frozen=True)
class ProgressUpdated(Event):
    """``done`` of ``total`` steps of ``task`` are done; a task is for example 'resizing images'."""

    task: str
    done: int
    total: int


@dataclass(frozen=True)
class StageStarted(Event):
    """A stage that takes a while has started, for example 'starting Ray'; the previous stage has ended."""

    stage: str


@dataclass(frozen=True)
class AuditCompleted(Event):
    """The audit of the data set is complete; ``arguments`` are those of ``freezeline audit`` for the same data."""

    audit: Audit
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class SearchStarted(Event):
    """The inputs of a search are valid, and its parent run exists.

    Attributes:
        version: the version of Freezeline.
        command: ``tune`` or ``resume``.
        data: the name of the data set.
        images: the number of images by split.
        classes: the number of classes.
        run_id: the ID of the parent run.
        experiment: the name of the MLflow experiment.
        seed: the seed of the search.
        tracking_uri: the tracking store, without credentials; empty with ``tracking=offline``.
    """

    version: str
    command: str
    data: str
    images: Mapping[str, int]
    classes: int
    run_id: str
    experiment: str
    seed: int
    tracking_uri: str


@dataclass(frozen=True)
class PhaseStarted(Event):
    """The first trial of a phase has ended, or the work after the trials has started.

    Attributes:
        number: the number of the phase, starting at 1.
        total: the number of phases of this search.
        name: the name of the phase.
        planned: the number of its trials in this command; None if it is not known.
    """

    number: int
    total: int
    name: str
    planned: int | None = None


@dataclass(frozen=True)
class SearchPlanned(Event):
    """The search is about to start its trials.

    Attributes:
        run_id: the ID of the parent run.
        text: the plan as text.
        trials: the total number of trials, including those of a resumed search; None: limited by time only.
        probes: the number of linear probes still to run.
        finished: the number of trials that a resumed search had finished before, without probes and re-runs.
        max_epochs: the maximum number of epochs of a trial.
        max_concurrent: the maximum number of concurrent trials.
        ends_s: the target for the end of the command as Unix time in seconds; None: no time limit.
        budget_s: the time limit of the command in seconds; None: no time limit.
        device: the kind of device that trains a trial.
        device_name: the model of the GPU; empty if it is not known.
        best: the best trial so far of a resumed search.
        previous: the trials that a resumed search had ended before.
        probes_dropped: the number of planned linear probes that a resumed search does not run any more.
    """

    run_id: str
    text: str
    trials: int | None
    probes: int
    finished: int
    max_epochs: int
    max_concurrent: int
    ends_s: float | None
    budget_s: float | None = None
    device: Literal["CPU", "GPU"] = "CPU"
    device_name: str = ""
    best: TrialRecord | None = None
    previous: Sequence[TrialRecord] = ()
    probes_dropped: int = 0


@dataclass(frozen=True)
class TrialStarted(Event):
    """A trial was assigned to a worker, which may still be starting."""

    trial: TrialRecord


@dataclass(frozen=True)
class EpochEnded(Event):
    """A trial has completed an epoch, which ``trial`` already contains."""

    trial: TrialRecord
    report: TrialReport


@dataclass(frozen=True)
class TrialEnded(Event):
    """A trial has ended as complete, out of time, pruned or failed, with a reason."""

    trial: TrialRecord


@dataclass(frozen=True)
class TrainingEpochEnded(Event):
    """The single configuration of ``train`` has completed an epoch."""

    report: TrialReport

    @property
    def score(self) -> float:
        """The validation balanced accuracy."""
        return self.report.metrics[OBJECTIVE_METRIC]


@dataclass(frozen=True)
class CandidateEvaluated(Event):
    """The winner was evaluated on the test images; ``baseline`` is the accuracy of raw pixels, None if unknown."""

    candidate: Candidate
    baseline: float | None


@dataclass(frozen=True)
class PromotionDecided(Event):
    """The promotion decision about the winner."""

    candidate: Candidate
    version: int
    promotion: Promotion


@dataclass(frozen=True)
class ReportWritten(Event):
    """The report was written to ``file``."""

    file: Path


@dataclass(frozen=True)
class CommandEnded(Event):
    """The command has ended; this is the last event. ``problems`` are the error messages."""

    exit_status: int
    problems: tuple[str, ...] = ()


class Renderer(Protocol):
    """Shows events to a person or writes them for a program."""

    def handle(self, event: Event) -> None:
        """Show an event. One thread calls this at a time, sometimes the driver's event loop, so it must be fast."""

    def close(self) -> None:
        """Restore the terminal; no event follows."""


class EventBus:
    """Passes each event to the renderers in their order, from any thread, one event at a time."""

    def __init__(self, *renderers: Renderer) -> None:
        self._renderers = renderers
        self._lock = threading.RLock()

    def emit(self, event: Event) -> None:
        """Pass an event to the renderers."""
        with self._lock:
            for renderer in self._renderers:
                renderer.handle(event)

    def progress(self, task: str, done: int, total: int) -> None:
        """Emit the progress of a task; passed to ``data`` and ``models`` as their ``ProgressCallback``."""
        self.emit(ProgressUpdated(task, done, total))

    def stage(self, stage: str) -> None:
        """Emit the start of a stage that takes a while."""
        self.emit(StageStarted(stage))

    def info(self, text: str) -> None:
        """Emit a message, shown with the time of day."""
        self.emit(Message(text))

    def warning(self, text: str) -> None:
        """Emit a warning: an error, or something the user must do. Shown in every mode, including ``quiet``."""
        self.emit(Message(text, is_warning=True))

    def show(self, *parts: object) -> None:
        """Emit tables and lines, shown unchanged."""
        self.emit(TablesShown(parts))

    def show_result(self, *parts: object) -> None:
        """Emit the final result as tables and lines, shown unchanged in every mode."""
        self.emit(TablesShown(parts, is_result=True))

    def end(self, exit_status: int, problems: tuple[str, ...] = ()) -> int:
        """Emit the end of the command with its error messages; return the exit status."""
        self.emit(CommandEnded(exit_status, problems))
        return exit_status

    def close(self) -> None:
        """Close the renderers."""
        for renderer in self._renderers:
            renderer.close()
