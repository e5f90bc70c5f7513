"""Lines for the events of a search: the output of a log, and the lines above the live view."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from models.features.caching_policy import DISK_FULL
from tuning.common.events import (
    AuditCompleted,
    CandidateEvaluated,
    EpochEnded,
    Event,
    Message,
    PhaseStarted,
    ProgressUpdated,
    PromotionDecided,
    ReportWritten,
    SearchPlanned,
    SearchStarted,
    StageStarted,
    TablesShown,
    TrainingEpochEnded,
    TrialEnded,
)
from tuning.common.formatting import format_decision
from tuning.common.names import TEST_METRIC
from tuning.ui import header, trial_rows
from tuning.ui.console import ConsolePrinter, wrap_hanging

if TYPE_CHECKING:
    from tuning.common.trial_record import TrialRecord

FAILED, DIM, BEST, WARNING, HEADING = "red", "dim", "bold", "yellow", "bold"  # styles of lines in a terminal
INDENT = len("00:00:00  ")  # of a message's continuation lines, below its text
COMMANDS = ("freezeline ", "python -m")
WARNING_MARK = "! "  # for a log and a terminal without colors


class LogRenderer(ConsolePrinter):
    """Prints a header, a row for each trial under the heading of its phase, the result and the next commands.

    With ``use_stderr``, standard output is for programs.
    """

    def __init__(self, use_stderr: bool = False) -> None:
        super().__init__(use_stderr)
        self._has_data = False  # stages before the header are short and not printed
        self._phase: PhaseStarted | None = None
        self._num_done: Counter[str] = Counter()  # by unit of the phases: probe, trial, re-run
        self._best: TrialRecord | None = None
        self._shown_best: TrialRecord | None = None
        self._disk_full_reported = False

    def handle(self, event: Event) -> None:
        """Print the line or lines of an event, if it has any."""
        match event:
            case Message():
                self.print_message(f"{WARNING_MARK if event.is_warning else ''}{event.text}", _style(event))
            case TablesShown():
                self.print_parts(*event.parts)
            case ProgressUpdated():
                self.print_progress(event.task, event.done, event.total)
            case SearchStarted() | AuditCompleted() | SearchPlanned():
                self._print_inputs(event)
            case StageStarted():
                self._print_stage(event.stage)
            case PhaseStarted():
                self._print_phase(event)
            case EpochEnded():
                self.warn_if_disk_full(event)
            case TrialEnded():
                self._print_trial_ended(event.trial)
            case TrainingEpochEnded():
                loss = event.report.metrics["val_loss"]
                self.print_message(
                    f"epoch {event.report.epoch}: val balanced accuracy {event.score:.4f}, loss {loss:.4f}"
                )
            case CandidateEvaluated() | PromotionDecided() | ReportWritten():
                self._print_outcome(event)

    def close(self) -> None:
        """Do nothing: the terminal was not changed."""

    def print_message(self, text: str, style: str = "") -> None:
        """Print a message with the time of day, wrapped between words unless it holds a command to copy."""
        width = self.console.width - INDENT
        super().print_message(
            text if any(command in text for command in COMMANDS) else wrap_hanging(text, width, INDENT), style
        )

    def _print_inputs(self, event: SearchStarted | AuditCompleted | SearchPlanned) -> None:
        match event:
            case SearchStarted():
                self._has_data = True
                self.print_parts(*header.header_lines(event))
            case AuditCompleted() if self._has_data:
                self.print_parts(*header.audit_lines(event))
            case AuditCompleted():  # of ``train``, which has no header
                self._has_data = True
                self.print_parts(event.audit.headline, *header.audit_lines(event))
            case SearchPlanned():
                self._best = self._shown_best = event.best
                self.print_parts(*header.plan_lines(event))

    def _print_stage(self, stage: str) -> None:
        if self._has_data:
            self.print_message(stage)

    def _print_phase(self, phase: PhaseStarted) -> None:
        """Print the summary of the previous phase, and the heading."""
        self._print_summary()
        self._phase = phase
        self.print_parts("")
        self.print_line(trial_rows.heading(phase), HEADING)
        if phase.name in trial_rows.PHASE_UNITS:
            self.print_line(trial_rows.column_names(), DIM)

    def _print_trial_ended(self, trial: TrialRecord) -> None:
        """Print the row of a trial; from time to time also the number of trials that are done."""
        unit = "probe" if trial.is_probe else "re-run" if trial.origin == "rerun" else "trial"
        self._num_done[unit] += 1
        is_best = trial.is_eligible and (self._best is None or trial.sort_key > self._best.sort_key)
        if is_best:
            self._best = trial
        style = FAILED if trial.status == "failed" else BEST if is_best else DIM if trial.status == "pruned" else ""
        self.print_line(trial_rows.row(trial, is_best), style)
        if trial.status == "failed":
            self.print_line(f"{' ' * trial_rows.TIME_WIDTH}  trial {trial.number} failed: {trial.reason}", FAILED)
        if sum(self._num_done.values()) % trial_rows.SUMMARY_INTERVAL == 0:
            self._print_summary()

    def _print_summary(self) -> None:
        """Print the number of trials of the current phase that are done, and a new best score."""
        if self._phase is None or self._phase.name not in trial_rows.PHASE_UNITS:
            return
        new_best = self._best if self._best != self._shown_best else None
        self._shown_best = self._best
        num_done = self._num_done[trial_rows.PHASE_UNITS[self._phase.name]]
        self.print_line(trial_rows.summary(num_done, self._phase.planned, new_best), DIM)

    def _print_outcome(self, event: CandidateEvaluated | PromotionDecided | ReportWritten) -> None:
        """Print a short line; the whole result follows at the end (``TablesShown``)."""
        match event:
            case CandidateEvaluated(candidate):
                self.print_message(f"test balanced accuracy {candidate.metrics[TEST_METRIC]:.4f}")
            case PromotionDecided(candidate, version, promotion):
                self.print_message(format_decision(candidate, version, promotion).partition(": ")[0])

    def warn_if_disk_full(self, event: EpochEnded) -> None:
        """Print a warning when a trial reports a full disk for the first time."""
        if self._disk_full_reported or event.report.runtime_info.get("features") != DISK_FULL:
            return
        self._disk_full_reported = True
        problem = f"the disk is full: trial {event.trial.number} recomputes its frozen blocks in every epoch"
        fix = "free disk space, for example with freezeline cache --clear all"
        self.handle(Message(f"{problem}, and later trials may too; {fix}", is_warning=True))


def _style(message: Message) -> str:
    return WARNING if message.is_warning else ""


class QuietRenderer(LogRenderer):
    """Prints the final results to standard output, and warnings to standard error."""

    def __init__(self, use_stderr: bool = False) -> None:
        super().__init__(use_stderr)
        self._errors = ConsolePrinter(use_stderr=True)

    def handle(self, event: Event) -> None:
        """Print an event if it is a warning or a final result."""
        match event:
            case Message(is_warning=True):
                self._errors.print_message(event.text)
            case TablesShown(is_result=True):
                super().handle(event)
            case EpochEnded():
                self.warn_if_disk_full(event)
