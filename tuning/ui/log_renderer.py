"""One line with the time for each event of a search: the output of a log, and the lines above the live view."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.features.caching_policy import DISK_FULL
from tuning.common.events import (
    AuditCompleted,
    CandidateEvaluated,
    EpochEnded,
    Event,
    Message,
    ProgressUpdated,
    PromotionDecided,
    ReportWritten,
    SearchPlanned,
    StageStarted,
    TablesShown,
    TrainingEpochEnded,
    TrialEnded,
)
from tuning.common.formatting import describe_network, describe_settings, format_decision, format_score, pluralize
from tuning.ui.console import ConsolePrinter

if TYPE_CHECKING:
    from tuning.common.trial_record import TrialRecord

FAILED, PRUNED, BEST, WARNING = "red", "dim", "bold", "yellow"  # styles of lines in a terminal
AUDIT_HINT = "  the run's audit.json names every file; so does python -m tuning audit --json FILE"


class LogRenderer(ConsolePrinter):
    """Prints a line for each finished trial, the best score so far, the test result and the decision.

    With ``use_stderr``, standard output is for programs.
    """

    def __init__(self, use_stderr: bool = False) -> None:
        super().__init__(use_stderr)
        self._num_finished = 0
        self._best: TrialRecord | None = None
        self._disk_full_reported = False

    def handle(self, event: Event) -> None:
        """Print the line or lines of an event, if it has any."""
        match event:
            case Message():
                self.print_message(event.text, WARNING if event.is_warning else "")
            case TablesShown():
                self.print_parts(*event.parts)
            case ProgressUpdated():
                self.print_progress(event.task, event.done, event.total)
            case AuditCompleted():
                has_files = any(finding.files for finding in event.audit.findings)
                self.print_parts(*event.audit.lines(max_files=0), *([AUDIT_HINT] if has_files else []))
            case StageStarted():
                self.print_message(event.stage)
            case SearchPlanned():
                self._best = event.best
                self.print_message(event.text)
            case EpochEnded():
                self.print_epoch(event)
            case TrialEnded():
                self.print_trial_ended(event.trial)
            case TrainingEpochEnded():
                loss = event.report.metrics["val_loss"]
                self.print_message(
                    f"epoch {event.report.epoch}: val balanced accuracy {event.score:.4f}, loss {loss:.4f}"
                )
            case CandidateEvaluated():
                self.print_test_result(event)
            case PromotionDecided():
                self.print_parts(format_decision(event.candidate, event.version, event.promotion))
            case ReportWritten():
                self.print_parts(f"report:               {event.file}")

    def close(self) -> None:
        """Do nothing: the terminal was not changed."""

    def print_test_result(self, event: CandidateEvaluated) -> None:
        """Print the test metrics."""
        from tuning.ui.summary import result_lines  # it imports torch, which would delay the first output by seconds

        self.print_parts(*result_lines(event.candidate, event.baseline))

    def print_epoch(self, event: EpochEnded) -> None:
        """Print a trial's settings after its first epoch, and the first report of a full disk.

        Probes and re-runs have no such line: a probe is over within moments, the settings of a re-run are known.
        """
        trial = event.trial
        if event.report.epoch == 1 and trial.counts_as_trial:
            self.print_trial_started(trial)
        if not self._disk_full_reported and event.report.runtime_info.get("features") == DISK_FULL:
            self._disk_full_reported = True
            problem = f"the disk is full: trial {trial.number} recomputes its frozen blocks in every epoch"
            fix = "free disk space, for example with python -m tuning cache --clear all"
            self.handle(Message(f"{problem}, and later trials may too; {fix}", is_warning=True))

    def print_trial_started(self, trial: TrialRecord) -> None:
        """Print the settings of a running trial."""
        self.print_message(f"trial {trial.number} started: {describe_settings(trial)}")

    def print_trial_ended(self, trial: TrialRecord) -> None:
        """Print how a trial ended."""
        self._num_finished += 1
        if trial.status == "failed":
            self.print_message(f"trial {trial.number} failed: {trial.reason}{self.progress_suffix(False)}", FAILED)
            return
        if trial.origin == "rerun":
            self.print_message(f"trial {trial.number}, re-run with seed {trial.config.seed}: {format_score(trial)}")
            return
        is_best = self._best is None or trial.sort_key > self._best.sort_key
        if is_best:
            self._best = trial
        text = f"trial {trial.number} {trial.status} after {pluralize(trial.epochs, 'epoch')}"
        if trial.origin == "probe":
            text = f"trial {trial.number}, linear probe of {describe_network(trial)}"
        style = BEST if is_best else PRUNED if trial.status == "pruned" else ""
        self.print_message(f"{text}: {format_score(trial)}{self.progress_suffix()}", style)

    def progress_suffix(self, with_best: bool = True) -> str:
        """Return the end of a finished trial's line: the best score so far and the number of finished trials."""
        finished = f" ({self._num_finished} finished)"
        if not with_best or self._best is None:
            return finished
        return f", best {format_score(self._best)} by trial {self._best.number}{finished}"


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
            case CandidateEvaluated() | PromotionDecided() | ReportWritten():
                super().handle(event)
            case EpochEnded():
                self.print_epoch(event)  # warns of a full disk

    def print_trial_started(self, trial: TrialRecord) -> None:
        """Print nothing."""
