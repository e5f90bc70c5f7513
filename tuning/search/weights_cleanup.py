"""Keeping a search's folder small: weights of the best trials, and checkpoints of those that run, but no others."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialResult
from tuning.search.selection import ranked
from tuning.search.study import Ledger

if TYPE_CHECKING:
    from tuning.common.trial_record import TrialReport

KEPT = 10  # trials whose weights stay: the finalists, and as many again for one who looks


class Tidying:
    """A listener of the search that throws out, when a trial ends, what nobody needs any more."""

    def __init__(self, paths: SearchPaths, ledger: Ledger, kept: int = KEPT) -> None:
        """Take how many trials' weights are kept."""
        self._paths = paths
        self._ledger = ledger
        self._kept = kept
        self._with_weights: dict[str, TrialResult] = {}
        for result in ledger.results():
            if result.status != "running":
                self._end(result)

    def trial_started(self, result: TrialResult) -> None:
        """Do nothing."""

    def epoch_ended(self, result: TrialResult, report: TrialReport) -> None:
        """Do nothing: a trial that runs needs its files."""

    def trial_ended(self, result: TrialResult, report: TrialReport | None) -> None:
        """Throw out the trial's checkpoint, and the weights of whoever is not among the best any more."""
        self._end(result)

    def _end(self, result: TrialResult) -> None:
        with contextlib.suppress(OSError):  # a file that stays costs room, not the search
            self._paths.checkpoint(result.trial_uid).unlink(missing_ok=True)
            self._with_weights[result.trial_uid] = result
            best = {one.trial_uid for one in ranked(list(self._with_weights.values()))[: self._kept]}
            for uid in [uid for uid in self._with_weights if uid not in best]:
                del self._with_weights[uid]
                for file in self._paths.trials.glob(f"{uid}.*.safetensors"):
                    file.unlink(missing_ok=True)
