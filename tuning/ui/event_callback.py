"""The search callback that emits the events of its trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuning.common.event_bus import emit
from tuning.common.events import EpochEnded, TrialEnded, TrialStarted
from tuning.common.trial_callback import TrialCallback

if TYPE_CHECKING:
    from tuning.common.trial_record import TrialRecord, TrialReport


class EventCallback(TrialCallback):
    """Turns each call into an event."""

    def on_trial_start(self, trial: TrialRecord) -> None:
        """Emit ``TrialStarted`` when a trial is sent to a worker."""
        emit(TrialStarted(trial))

    def on_epoch_end(self, trial: TrialRecord, report: TrialReport) -> None:
        """Emit ``EpochEnded``."""
        emit(EpochEnded(trial, report))

    def on_trial_end(self, trial: TrialRecord, report: TrialReport | None) -> None:
        """Emit ``TrialEnded``."""
        emit(TrialEnded(trial))
