"""Where MLflow's UI shows a search and its trials."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tuning.common.trial_record import TrialRecord

LOCAL_UI = "http://127.0.0.1:5000"
MODE = "workflowType=machine_learning"  # the UI opens in its GenAI mode unless told otherwise
FREEZE_CHART = "charts/freeze.png"  # of the report's pictures, on the search's run


class MlflowLinks(NamedTuple):
    """The pages of one search, as what follows the server's address: they hold wherever the UI is opened.

    Attributes:
        experiment_id: of all its runs.
        search: its own run.
        trials: the run of each trial that has one, by its uid.
    """

    experiment_id: str
    search: str
    trials: Mapping[str, str]

    def run_of(self, result: TrialRecord) -> str:
        """Return the run of a trial; empty if it has none."""
        return self.trials.get(result.trial_uid, "")

    def run(self, run_id: str) -> str:
        """Return the page of a run."""
        return f"#/experiments/{self.experiment_id}/runs/{run_id}?{MODE}"

    def artifact(self, path: str) -> str:
        """Return the page of a file of the search's run."""
        return f"#/experiments/{self.experiment_id}/runs/{self.search}/artifacts/{path}?{MODE}"

    def comparison(self, results: Sequence[TrialRecord]) -> str:
        """Return the page that compares the trials, the best in the first column.

        MLflow offers to compare what all runs have: one that was stopped in its first epoch would leave no metric.
        """
        scored = [(result.score, self.run_of(result)) for result in results if result.score is not None]
        runs = [run_id for _, run_id in sorted(scored, key=lambda one: -one[0]) if run_id]
        listed, experiments = (urllib.parse.quote(_compact(ids)) for ids in (runs, [self.experiment_id]))
        # The UI reads the runs only where they come first.
        return f"#/compare-runs?runs={listed}&experiments={experiments}&{MODE}"

    def markdown(self, results: Sequence[TrialRecord], best: TrialRecord) -> str:
        """Return what leads on from the search's description, and the picture of what freezing did."""
        winner = f"[Trial {best.number}, the best]({self.run(run_id)}) · " if (run_id := self.run_of(best)) else ""
        freeze = urllib.parse.urlencode({"path": FREEZE_CHART, "run_uuid": self.search})
        return (
            f"{winner}[all trials compared]({self.comparison(results)}) · [report]({self.artifact('report.html')}) · "
            f"[accuracy by freeze depth]({self.artifact(FREEZE_CHART)})\n\n"
            f"![accuracy by freeze depth](get-artifact?{freeze})\n\n"
        )


def absolute_url(tracking_uri: str, page: str) -> str:
    """Return the whole address of a page, without the login that the server's may carry."""
    if not tracking_uri.startswith("http"):
        return f"{LOCAL_UI}/{page}"
    parts = urllib.parse.urlsplit(tracking_uri)
    server = urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return f"{server.rstrip('/')}/{page}"


def _compact(ids: Sequence[str]) -> str:
    return json.dumps(list(ids), separators=(",", ":"))
