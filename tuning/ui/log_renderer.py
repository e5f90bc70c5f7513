"""One plain line for each event of a search, with the time: what stands in a log, and above the live view."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.features.caching_policy import DISK_FULL
from tuning.common.events import (
    AuditCompleted,
    CandidateEvaluated,
    EpochEnded,
    Event,
    Message,
    PromotionDecided,
    ReportWritten,
    SearchPlanned,
    StageStarted,
    TrainingEpochEnded,
    TrialEnded,
)
from tuning.common.formatting import describe_network, describe_settings, format_score
from tuning.ui.console import ConsoleRenderer

if TYPE_CHECKING:
    from tuning.common.trial_record import TrialRecord

FAILED, PRUNED, BEST, WARNING = "red", "dim", "bold", "yellow"  # how a terminal shows lines of them
NAMES = "  the run's audit.json names every file; so does python -m tuning audit --json FILE"


class LogRenderer(ConsoleRenderer):
    """Prints a line for each thing that happened: how a trial ended and the best so far, the test result, the end."""

    def __init__(self, on_errors: bool = False) -> None:
        """Print on standard output, or on standard error where that is for a program."""
        super().__init__(on_errors)
        self._ended = 0
        self._best: TrialRecord | None = None
        self._is_full = False

    def handle(self, event: Event) -> None:
        """Print what there is to say of an event."""
        match event:
            case Message(is_warning=True):
                self.print_message(event.text, WARNING)
            case AuditCompleted():
                self.print_parts(
                    *event.audit.lines(max_files=0),
                    *([NAMES] if any(one.files for one in event.audit.findings) else []),
                )
            case StageStarted():
                self.print_message(event.stage)
            case SearchPlanned():
                self._best = event.best
                self.print_message(event.text)
            case EpochEnded():
                self.epoch_ended(event)
            case TrialEnded():
                self.trial_ended(event.trial)
            case TrainingEpochEnded():
                loss = event.report.metrics["val_loss"]
                self.print_message(
                    f"epoch {event.report.epoch}: val balanced accuracy {event.score:.4f}, loss {loss:.4f}"
                )
            case CandidateEvaluated():
                self.measured(event)
            case PromotionDecided():
                self.decided(event)
            case ReportWritten():
                self.print_parts(f"the report:           {event.file}")
            case _:
                super().handle(event)

    def measured(self, event: CandidateEvaluated) -> None:
        """Print the test result."""
        from tuning.ui.summary import result_lines  # torch behind it takes seconds: not before something is shown

        self.print_parts(*result_lines(event.candidate, event.baseline))

    def decided(self, event: PromotionDecided) -> None:
        """Print what became of the winner."""
        from tuning.common.formatting import format_decision

        self.print_parts(format_decision(event.candidate, event.version, event.promotion))

    def epoch_ended(self, event: EpochEnded) -> None:
        """Say a trial's settings with its first epoch: now it runs; a probe is over at once. A full disk once."""
        result = event.trial
        if event.report.epoch == 1 and result.origin not in {"probe", "rerun"}:
            self.trial_runs(result)
        if not self._is_full and event.report.runtime_info.get("features") == DISK_FULL:
            self._is_full = True
            what = f"the disk is full: trial {result.number}, at least, computes its frozen blocks in every epoch"
            self.handle(Message(f"{what}; make room, as with python -m tuning cache --clear all", is_warning=True))

    def trial_runs(self, result: TrialRecord) -> None:
        """Say what a trial that has begun is about."""
        self.print_message(f"trial {result.number} runs: {describe_settings(result)}")

    def trial_ended(self, result: TrialRecord) -> None:
        """Say how a trial ended."""
        self._ended += 1
        if result.status == "failed":
            self.print_message(f"trial {result.number} failed: {result.reason}{self.so_far(with_best=False)}", FAILED)
            return
        if result.origin == "rerun":
            self.print_message(
                f"trial {result.number}, a finalist again with seed {result.config.seed}: {format_score(result)}"
            )
            return
        is_best = self._best is None or result.sort_key > self._best.sort_key
        if is_best:
            self._best = result
        epochs = f"{result.epochs} epoch{'' if result.epochs == 1 else 's'}"
        said = f"trial {result.number} {result.status} after {epochs}"
        if result.origin == "probe":
            said = f"trial {result.number}, linear probe of {describe_network(result)}"
        style = BEST if is_best else PRUNED if result.status == "pruned" else ""
        self.print_message(f"{said}: {format_score(result)}{self.so_far()}", style)

    def so_far(self, with_best: bool = True) -> str:
        """Return what is added to the line of a trial that ended: the best, and how many have ended."""
        ended = f" ({self._ended} ended)"
        if not with_best or self._best is None:
            return ended
        return f", best {format_score(self._best)} by trial {self._best.number}{ended}"


class QuietRenderer(LogRenderer):
    """Prints what matters at the end on standard output; errors, and what asks to do something, on standard error."""

    def __init__(self, on_errors: bool = False) -> None:
        """Print results on standard output, or on standard error where that is for a program."""
        super().__init__(on_errors)
        self._errors = ConsoleRenderer(on_errors=True)

    def handle(self, event: Event) -> None:
        """Print it if it matters."""
        match event:
            case Message(is_warning=True):
                self._errors.handle(event)
            case CandidateEvaluated() | PromotionDecided() | ReportWritten():
                super().handle(event)
            case EpochEnded():
                self.epoch_ended(event)  # it warns of a full disk

    def trial_runs(self, result: TrialRecord) -> None:
        """Say nothing."""
