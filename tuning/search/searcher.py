"""The Tune Searcher: Ray asks it for trials and tells it what came of them; the ledger does both.

Ray's stock OptunaSearch tells a stopped trial as complete, leaves one with a NaN running for ever and refuses
warm starts of a conditional space.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.search import Searcher

from tuning.common.trial_record import TrialRecord, TrialReport, TrialStatus
from tuning.search.callback import TrialCallback
from tuning.search.schedulers import EXCLUDED, NEVER_STOP
from tuning.search.strategy import NextStep
from tuning.search.study import TrialStore
from tuning.search.trial_worker import MAX_WORKER_FAILURES, TrialTask

WORKER_LOST = f"its worker was lost more than {MAX_WORKER_FAILURES} times"


def scheduler_flags(result: TrialRecord) -> dict[str, bool]:
    """Return what the scheduler must know of a trial, as a part of its configuration."""
    return {
        NEVER_STOP: result.origin in {"default", "fine-tune"},
        EXCLUDED: result.origin in {"probe", "rerun"},
    }


class StudySearcher(Searcher):
    """Proposes what ``next_trial`` gives, which the ledger has written down, until that says that it is enough."""

    def __init__(
        self,
        store: TrialStore,
        callbacks: Sequence[TrialCallback],
        make_task: Callable[[TrialRecord], TrialTask],
        next_trial: Callable[[], NextStep],
    ) -> None:
        super().__init__(metric="objective", mode="max")
        self._store = store
        self._callbacks = callbacks
        self._make_task = make_task
        self._next_trial = next_trial
        self._uids: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:  # noqa: ANN401  # Ray types it as a dict, and its FINISHED is a text
        """Return the configuration of Ray's trial ``trial_id``: one task as JSON; None to be asked again later."""
        result = self._next_trial()
        if not isinstance(result, TrialRecord):
            return Searcher.FINISHED if result == "end" else None
        self._uids[trial_id] = result.trial_uid
        for listener in self._callbacks:
            listener.on_trial_start(result)
        return {"task": self._make_task(result).to_json(), **scheduler_flags(result)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Take an epoch of a trial that goes on."""
        self._report_epoch(self._uids[trial_id], TrialReport.from_json(result["report"]))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Take the end of a trial: its own last word, the scheduler's stop, or a worker that was lost."""
        trial_uid = self._uids.pop(trial_id)
        if error or result is None or "report" not in result:
            self._finish(trial_uid, "failed", WORKER_LOST, None, is_infrastructure_failure=True)
            return
        report = TrialReport.from_json(result["report"])
        if report.status == "failed":
            self._finish(trial_uid, "failed", report.reason, report, report.is_infrastructure_failure)
            return
        if report.status == "running":  # stopped in this very epoch: Ray tells it only here
            self._report_epoch(trial_uid, report)
        if report.status == "complete" or report.epoch >= self._store.get(trial_uid).config.fit.max_epochs:
            self._finish(trial_uid, "complete", "ran to its end", report)
        else:
            self._finish(trial_uid, "pruned", f"stopped by the scheduler after epoch {report.epoch}", report)

    def _report_epoch(self, trial_uid: str, report: TrialReport) -> None:
        if report.status == "running" and report.epoch > self._store.get(trial_uid).epochs:
            result = self._store.report(trial_uid, report)
            for listener in self._callbacks:
                listener.on_epoch_end(result, report)

    def _finish(
        self,
        trial_uid: str,
        status: TrialStatus,
        reason: str,
        report: TrialReport | None,
        is_infrastructure_failure: bool = False,
    ) -> None:
        result = self._store.finish(trial_uid, status, reason, is_infrastructure_failure)
        for listener in self._callbacks:
            listener.on_trial_end(result, report)

    def save(self, checkpoint_path: str) -> None:
        """Write an empty snapshot: the ledger is the truth, Ray's own restore is never used."""
        with open(checkpoint_path, "w") as file:  # noqa: PTH123  # Ray's interface hands a text path
            json.dump({}, file)

    def __reduce__(self) -> tuple[type[Searcher], tuple[()]]:
        # Tune pickles all that it is given at once; nothing is ever read back from it.
        return Searcher, ()
