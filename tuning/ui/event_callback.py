"""The listener of the search through which the views hear of its trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuning.common.event_bus import emit
from tuning.common.events import EpochEnded, TrialEnded, TrialStarted

if TYPE_CHECKING:
    from tuning.common.trial_record import TrialRecord, TrialReport


class EventCallback:
    """A listener of the search that makes events of what it hears."""

    def on_trial_start(self, result: TrialRecord) -> None:
        """Tell that a trial was handed to a worker."""
        emit(TrialStarted(result))

    def on_epoch_end(self, result: TrialRecord, report: TrialReport) -> None:
        """Tell an epoch."""
        emit(EpochEnded(result, report))

    def on_trial_end(self, result: TrialRecord, report: TrialReport | None) -> None:
        """Tell how a trial ended."""
        emit(TrialEnded(result))
