"""The base class of callbacks of a search."""

from __future__ import annotations

from tuning.common.trial_record import TrialRecord, TrialReport


class TrialCallback:
    """Hooks for the start, the epochs and the end of a trial; each does nothing unless it is overridden.

    They run in the driver's event loop, in the order of the callbacks, and must not block it.
    """

    def on_trial_start(self, trial: TrialRecord) -> None:
        """Handle a trial that is about to be submitted to Ray."""

    def on_epoch_end(self, trial: TrialRecord, report: TrialReport) -> None:
        """Handle an epoch; ``trial`` already includes it."""

    def on_trial_end(self, trial: TrialRecord, report: TrialReport | None) -> None:
        """Handle the end of a trial; ``report`` is None if its worker was lost."""
