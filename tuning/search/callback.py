"""Callbacks of a search: hooks that are called as trials start, report and end."""

from __future__ import annotations

from typing import Protocol

from tuning.common.trial_record import TrialReport, TrialResult


class Listener(Protocol):
    """What is told of a search as it goes, on the driver's loop: a listener must not block it."""

    def trial_started(self, result: TrialResult) -> None:
        """Hear of a trial before its worker starts."""

    def epoch_ended(self, result: TrialResult, report: TrialReport) -> None:
        """Hear of an epoch; ``result`` already holds it."""

    def trial_ended(self, result: TrialResult, report: TrialReport | None) -> None:
        """Hear how a trial ended; ``report`` is None for a lost worker."""
