"""Callbacks of a search: hooks for the start, the epochs and the end of a trial."""

from __future__ import annotations

from typing import Protocol

from tuning.common.trial_record import TrialRecord, TrialReport


class TrialCallback(Protocol):
    """Hooks that run in the driver's event loop, in the order of the callbacks; they must not block it."""

    def on_trial_start(self, trial: TrialRecord) -> None:
        """Called before a worker starts the trial."""

    def on_epoch_end(self, trial: TrialRecord, report: TrialReport) -> None:
        """Called after each epoch; ``trial`` already includes it."""

    def on_trial_end(self, trial: TrialRecord, report: TrialReport | None) -> None:
        """Called when a trial has ended; ``report`` is None if its worker was lost."""
