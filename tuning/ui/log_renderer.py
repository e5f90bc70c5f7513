"""One plain line for each event of a search, with the time: what stands in a log, and above the live view."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.features.caching_policy import DISK_FULL
from tuning.common.events import (
    Audited,
    Decided,
    Entered,
    EpochEnded,
    Event,
    Measured,
    Planned,
    Reported,
    Said,
    Trained,
    TrialEnded,
)
from tuning.common.formatting import network_text, score_text, settings_text
from tuning.ui.console import Printer

if TYPE_CHECKING:
    from tuning.common.trial_record import TrialResult

FAILED, PRUNED, BEST, WARNING = "red", "dim", "bold", "yellow"  # how a terminal shows lines of them
NAMES = "  the run's audit.json names every file; so does python -m tuning audit --json FILE"


class PlainView(Printer):
    """Prints a line for each thing that happened: how a trial ended and the best so far, the test result, the end."""

    def __init__(self, on_errors: bool = False) -> None:
        """Print on standard output, or on standard error where that is for a program."""
        super().__init__(on_errors)
        self._ended = 0
        self._best: TrialResult | None = None
        self._is_full = False

    def tell(self, event: Event) -> None:
        """Print what there is to say of an event."""
        match event:
            case Said(matters=True):
                self.say(event.text, WARNING)
            case Audited():
                self.show(
                    *event.audit.lines(named=0), *([NAMES] if any(one.files for one in event.audit.findings) else [])
                )
            case Entered():
                self.say(event.part)
            case Planned():
                self._best = event.best
                self.say(event.text)
            case EpochEnded():
                self.epoch_ended(event)
            case TrialEnded():
                self.trial_ended(event.result)
            case Trained():
                loss = event.report.metrics["val_loss"]
                self.say(f"epoch {event.report.epoch}: val balanced accuracy {event.score:.4f}, loss {loss:.4f}")
            case Measured():
                self.measured(event)
            case Decided():
                self.decided(event)
            case Reported():
                self.show(f"the report:           {event.file}")
            case _:
                super().tell(event)

    def measured(self, event: Measured) -> None:
        """Print the test result."""
        from tuning.ui.summary import result_lines  # torch behind it takes seconds: not before something is shown

        self.show(*result_lines(event.candidate, event.baseline))

    def decided(self, event: Decided) -> None:
        """Print what became of the winner."""
        from tuning.common.formatting import decision_line

        self.show(decision_line(event.candidate, event.version, event.promotion))

    def epoch_ended(self, event: EpochEnded) -> None:
        """Say a trial's settings with its first epoch: now it runs; a probe is over at once. A full disk once."""
        result = event.result
        if event.report.epoch == 1 and result.origin not in {"probe", "final"}:
            self.trial_runs(result)
        if not self._is_full and event.report.facts.get("features") == DISK_FULL:
            self._is_full = True
            what = f"the disk is full: trial {result.number}, at least, computes its frozen blocks in every epoch"
            self.tell(Said(f"{what}; make room, as with python -m tuning cache --clear all", matters=True))

    def trial_runs(self, result: TrialResult) -> None:
        """Say what a trial that has begun is about."""
        self.say(f"trial {result.number} runs: {settings_text(result)}")

    def trial_ended(self, result: TrialResult) -> None:
        """Say how a trial ended."""
        self._ended += 1
        if result.status == "failed":
            self.say(f"trial {result.number} failed: {result.reason}{self.so_far(with_best=False)}", FAILED)
            return
        if result.origin == "final":
            self.say(f"trial {result.number}, a finalist again with seed {result.config.seed}: {score_text(result)}")
            return
        is_best = self._best is None or result.rank > self._best.rank
        if is_best:
            self._best = result
        epochs = f"{result.epochs} epoch{'' if result.epochs == 1 else 's'}"
        said = f"trial {result.number} {result.status} after {epochs}"
        if result.origin == "probe":
            said = f"trial {result.number}, linear probe of {network_text(result)}"
        style = BEST if is_best else PRUNED if result.status == "pruned" else ""
        self.say(f"{said}: {score_text(result)}{self.so_far()}", style)

    def so_far(self, with_best: bool = True) -> str:
        """Return what is added to the line of a trial that ended: the best, and how many have ended."""
        ended = f" ({self._ended} ended)"
        if not with_best or self._best is None:
            return ended
        return f", best {score_text(self._best)} by trial {self._best.number}{ended}"


class QuietView(PlainView):
    """Prints what matters at the end on standard output; errors, and what asks to do something, on standard error."""

    def __init__(self, on_errors: bool = False) -> None:
        """Print results on standard output, or on standard error where that is for a program."""
        super().__init__(on_errors)
        self._errors = Printer(on_errors=True)

    def tell(self, event: Event) -> None:
        """Print it if it matters."""
        match event:
            case Said(matters=True):
                self._errors.tell(event)
            case Measured() | Decided() | Reported():
                super().tell(event)
            case EpochEnded():
                self.epoch_ended(event)  # it warns of a full disk

    def trial_runs(self, result: TrialResult) -> None:
        """Say nothing."""
