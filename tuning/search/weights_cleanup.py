"""Keeping a search's folder small: weights of the best trials, and checkpoints of those that run, but no others."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialRecord
from tuning.search.selection import ranked
from tuning.search.study import TrialStore

if TYPE_CHECKING:
    from tuning.common.trial_record import TrialReport

KEEP_TOP_K = 10  # trials whose weights stay: the finalists, and as many again for one who looks


class WeightsCleanup:
    """A listener of the search that throws out, when a trial ends, what nobody needs any more."""

    def __init__(self, paths: SearchPaths, store: TrialStore, keep_top_k: int = KEEP_TOP_K) -> None:
        """Take how many trials' weights are kept."""
        self._paths = paths
        self._store = store
        self._keep_top_k = keep_top_k
        self._with_weights: dict[str, TrialRecord] = {}
        for result in store.trials():
            if result.status != "running":
                self._delete_unneeded(result)

    def on_trial_start(self, result: TrialRecord) -> None:
        """Do nothing."""

    def on_epoch_end(self, result: TrialRecord, report: TrialReport) -> None:
        """Do nothing: a trial that runs needs its files."""

    def on_trial_end(self, result: TrialRecord, report: TrialReport | None) -> None:
        """Throw out the trial's checkpoint, and the weights of whoever is not among the best any more."""
        self._delete_unneeded(result)

    def _delete_unneeded(self, result: TrialRecord) -> None:
        with contextlib.suppress(OSError):  # a file that stays costs room, not the search
            self._paths.checkpoint(result.trial_uid).unlink(missing_ok=True)
            self._with_weights[result.trial_uid] = result
            best = {one.trial_uid for one in ranked(list(self._with_weights.values()))[: self._keep_top_k]}
            for uid in [uid for uid in self._with_weights if uid not in best]:
                del self._with_weights[uid]
                for file in self._paths.trials.glob(f"{uid}.*.safetensors"):
                    file.unlink(missing_ok=True)
