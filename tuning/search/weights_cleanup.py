"""Limiting disk use: only weights of the best trials and checkpoints of running trials are kept."""

from __future__ import annotations

import contextlib

from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialCallback, TrialRecord, TrialReport
from tuning.search.selection import ranked
from tuning.search.study import TrialStore

KEEP_TOP_K = 10  # trials whose weights are kept: those that may be re-run, plus a margin for manual inspection


class WeightsCleanup(TrialCallback):
    """Deletes checkpoints and weights that are no longer needed."""

    def __init__(self, paths: SearchPaths, store: TrialStore) -> None:
        """Create the callback and delete files left by the trials that have ended so far."""
        self._paths = paths
        self._with_weights: dict[str, TrialRecord] = {}
        for trial in store.trials():
            if trial.status != "running":
                self._delete_unneeded(trial)

    def on_trial_end(self, trial: TrialRecord, report: TrialReport | None) -> None:
        """Delete the trial's checkpoint, and weights of trials that are no longer among the best."""
        self._delete_unneeded(trial)

    def _delete_unneeded(self, trial: TrialRecord) -> None:
        with contextlib.suppress(OSError):  # a remaining file only takes disk space
            self._paths.checkpoint(trial.trial_uid).unlink(missing_ok=True)
            if trial.config.is_probe:  # only the weights of a linear layer, which an ensemble may need
                return
            self._with_weights[trial.trial_uid] = trial
            best_uids = {best.trial_uid for best in ranked(list(self._with_weights.values()))[:KEEP_TOP_K]}
            for trial_uid in [trial_uid for trial_uid in self._with_weights if trial_uid not in best_uids]:
                del self._with_weights[trial_uid]
                for file in self._paths.all_weights(trial_uid):
                    file.unlink(missing_ok=True)
