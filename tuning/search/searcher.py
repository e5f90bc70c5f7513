"""The Tune Searcher: passes trials and their results between Ray Tune and the trial store.

Ray's OptunaSearch reports a stopped trial as complete, never ends a trial with a NaN and cannot continue a study whose
search space is conditional.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.search import Searcher

from tuning.common.trial_record import RAN_TO_ITS_END, TrialCallback, TrialRecord, TrialReport, TrialStatus
from tuning.search.schedulers import EXCLUDED, NEVER_STOP
from tuning.search.strategy import NextStep
from tuning.search.study import TrialStore
from tuning.search.trial_worker import MAX_WORKER_FAILURES, TrialTask

WORKER_LOST = f"the worker was lost more than {MAX_WORKER_FAILURES} times"


def scheduler_flags(trial: TrialRecord) -> dict[str, bool]:
    """Return the scheduler's flags of a trial, which are part of its Ray configuration."""
    return {
        NEVER_STOP: trial.origin in ("champion", "default"),
        EXCLUDED: not trial.counts_as_trial,
    }


class StudySearcher(Searcher):
    """Suggests the trials of ``next_step`` to Ray and their results to the trial store, then to the callbacks."""

    def __init__(
        self,
        store: TrialStore,
        callbacks: Sequence[TrialCallback],
        make_task: Callable[[TrialRecord], TrialTask],
        next_step: Callable[[], NextStep],
    ) -> None:
        super().__init__(metric="objective", mode="max")
        self._store = store
        self._callbacks = callbacks
        self._make_task = make_task
        self._next_step = next_step
        self._uids: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:  # noqa: ANN401  # Ray types it as a dict, and its FINISHED is a text
        """Return the configuration of Ray's trial ``trial_id``: its task as JSON and flags; None if Ray must wait."""
        step = self._next_step()
        if step == "end":
            return Searcher.FINISHED
        if step == "wait":
            return None
        trial = self._store.start(step)
        self._uids[trial_id] = trial.trial_uid
        for callback in self._callbacks:
            callback.on_trial_start(trial)
        return {"task": self._make_task(trial).to_json(), **scheduler_flags(trial)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Record an epoch of a trial that continues."""
        self._report_epoch(self._uids[trial_id], TrialReport.from_json(result["report"]))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Record the end of a trial: its final report, a stop by the scheduler, or a lost worker."""
        trial_uid = self._uids.pop(trial_id)
        if error or result is None or "report" not in result:
            self._finish(trial_uid, "failed", WORKER_LOST, None, is_infrastructure_failure=True)
            return
        report = TrialReport.from_json(result["report"])
        if report.status == "failed":
            self._finish(trial_uid, "failed", report.reason, report, report.is_infrastructure_failure)
            return
        if report.status == "running":  # stopped after this epoch, which Ray reports only here
            self._report_epoch(trial_uid, report)
        if report.status == "complete" or self._store.get(trial_uid).has_all_epochs:
            self._finish(trial_uid, "complete", RAN_TO_ITS_END, report)
        else:
            self._finish(trial_uid, "pruned", f"stopped by the scheduler after epoch {report.epoch}", report)

    def _report_epoch(self, trial_uid: str, report: TrialReport) -> None:
        if report.status == "running" and report.epoch > self._store.get(trial_uid).epochs:
            trial = self._store.report(trial_uid, report)
            for callback in self._callbacks:
                callback.on_epoch_end(trial, report)

    def _finish(
        self,
        trial_uid: str,
        status: TrialStatus,
        reason: str,
        report: TrialReport | None,
        is_infrastructure_failure: bool = False,
    ) -> None:
        trial = self._store.finish(trial_uid, status, reason, is_infrastructure_failure)
        for callback in self._callbacks:
            callback.on_trial_end(trial, report)

    def save(self, checkpoint_path: str) -> None:
        """Write an empty snapshot: a search is resumed from the trial store, never by Ray."""
        with open(checkpoint_path, "w") as file:  # noqa: PTH123  # Ray passes the path as text
            json.dump({}, file)

    def __reduce__(self) -> tuple[type[Searcher], tuple[()]]:
        # Tune pickles its searcher for snapshots, which are never loaded.
        return Searcher, ()
