"""Callbacks of a search: hooks that are called as trials start, report and end."""

from __future__ import annotations

from typing import Protocol

from tuning.common.trial_record import TrialRecord, TrialReport


class TrialCallback(Protocol):
    """What is told of a search as it goes, on the driver's loop: a listener must not block it."""

    def on_trial_start(self, result: TrialRecord) -> None:
        """Hear of a trial before its worker starts."""

    def on_epoch_end(self, result: TrialRecord, report: TrialReport) -> None:
        """Hear of an epoch; ``result`` already holds it."""

    def on_trial_end(self, result: TrialRecord, report: TrialReport | None) -> None:
        """Hear how a trial ended; ``report`` is None for a lost worker."""
