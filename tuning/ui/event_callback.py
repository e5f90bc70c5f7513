"""The listener of the search through which the views hear of its trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuning.common.event_bus import tell
from tuning.common.events import EpochEnded, TrialEnded, TrialStarted

if TYPE_CHECKING:
    from tuning.common.trial_record import TrialReport, TrialResult


class Telling:
    """A listener of the search that makes events of what it hears."""

    def trial_started(self, result: TrialResult) -> None:
        """Tell that a trial was handed to a worker."""
        tell(TrialStarted(result))

    def epoch_ended(self, result: TrialResult, report: TrialReport) -> None:
        """Tell an epoch."""
        tell(EpochEnded(result, report))

    def trial_ended(self, result: TrialResult, report: TrialReport | None) -> None:
        """Tell how a trial ended."""
        tell(TrialEnded(result))
