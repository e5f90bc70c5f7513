"""The Tune Searcher: Ray asks it for trials and tells it what came of them; the ledger does both.

Ray's stock OptunaSearch tells a stopped trial as complete, leaves one with a NaN running for ever and refuses
warm starts of a conditional space.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.search import Searcher

from tuning.common.trial_record import Status, TrialReport, TrialResult
from tuning.search.callback import Listener
from tuning.search.schedulers import PROTECTED, UNJUDGED
from tuning.search.strategy import Step
from tuning.search.study import Ledger
from tuning.search.trial_worker import LOSSES, TrialTask

LOST = f"its worker was lost more than {LOSSES} times"


def marks(result: TrialResult) -> dict[str, bool]:
    """Return what the scheduler must know of a trial, as a part of its configuration."""
    return {
        PROTECTED: result.origin in {"default", "fine-tune"},
        UNJUDGED: result.origin in {"probe", "final"},
    }


class LedgerSearcher(Searcher):
    """Proposes what ``next_trial`` gives, which the ledger has written down, until that says that it is enough."""

    def __init__(
        self,
        ledger: Ledger,
        listeners: Sequence[Listener],
        make_task: Callable[[TrialResult], TrialTask],
        next_trial: Callable[[], Step],
    ) -> None:
        super().__init__(metric="objective", mode="max")
        self._ledger = ledger
        self._listeners = listeners
        self._make_task = make_task
        self._next_trial = next_trial
        self._uids: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:  # noqa: ANN401  # Ray types it as a dict, and its FINISHED is a text
        """Return the configuration of Ray's trial ``trial_id``: one task as JSON; None to be asked again later."""
        result = self._next_trial()
        if not isinstance(result, TrialResult):
            return Searcher.FINISHED if result == "end" else None
        self._uids[trial_id] = result.trial_uid
        for listener in self._listeners:
            listener.trial_started(result)
        return {"task": self._make_task(result).to_json(), **marks(result)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Take an epoch of a trial that goes on."""
        self._epoch(self._uids[trial_id], TrialReport.from_json(result["report"]))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Take the end of a trial: its own last word, the scheduler's stop, or a worker that was lost."""
        trial_uid = self._uids.pop(trial_id)
        if error or result is None or "report" not in result:
            self._finish(trial_uid, "failed", LOST, None, blameless=True)
            return
        report = TrialReport.from_json(result["report"])
        if report.status == "failed":
            self._finish(trial_uid, "failed", report.reason, report, report.blameless)
            return
        if report.status == "running":  # stopped in this very epoch: Ray tells it only here
            self._epoch(trial_uid, report)
        if report.status == "complete" or report.epoch >= self._ledger.result(trial_uid).config.fit.max_epochs:
            self._finish(trial_uid, "complete", "ran to its end", report)
        else:
            self._finish(trial_uid, "pruned", f"stopped by the scheduler after epoch {report.epoch}", report)

    def _epoch(self, trial_uid: str, report: TrialReport) -> None:
        if report.status == "running" and report.epoch > self._ledger.result(trial_uid).epochs:
            result = self._ledger.report(trial_uid, report)
            for listener in self._listeners:
                listener.epoch_ended(result, report)

    def _finish(
        self, trial_uid: str, status: Status, reason: str, report: TrialReport | None, blameless: bool = False
    ) -> None:
        result = self._ledger.finish(trial_uid, status, reason, blameless)
        for listener in self._listeners:
            listener.trial_ended(result, report)

    def save(self, checkpoint_path: str) -> None:
        """Write an empty snapshot: the ledger is the truth, Ray's own restore is never used."""
        with open(checkpoint_path, "w") as file:  # noqa: PTH123  # Ray's interface hands a text path
            json.dump({}, file)

    def __reduce__(self) -> tuple[type[Searcher], tuple[()]]:
        # Tune pickles all that it is given at once; nothing is ever read back from it.
        return Searcher, ()
