"""The search callback that emits the events of its trials."""

from __future__ import annotations

from tuning.common.events import EpochEnded, EventBus, TrialEnded, TrialStarted
from tuning.common.trial_record import TrialCallback, TrialRecord, TrialReport


class EventCallback(TrialCallback):
    """Turns each call into an event on ``bus``."""

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus

    def on_trial_start(self, trial: TrialRecord) -> None:
        """Emit ``TrialStarted`` when a trial is sent to a worker."""
        self._bus.emit(TrialStarted(trial))

    def on_epoch_end(self, trial: TrialRecord, report: TrialReport) -> None:
        """Emit ``EpochEnded``."""
        self._bus.emit(EpochEnded(trial, report))

    def on_trial_end(self, trial: TrialRecord, report: TrialReport | None) -> None:
        """Emit ``TrialEnded``."""
        self._bus.emit(TrialEnded(trial))
