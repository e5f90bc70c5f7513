"""Links to the pages of a search and its trials in MLflow's UI."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from typing import NamedTuple

from tuning.common.redaction import without_credentials
from tuning.common.trial_record import TrialRecord
from tuning.tracking.experiment import UI_MODE, view_key, view_url

LOCAL_UI = "http://127.0.0.1:5000"
FREEZE_CHART = "charts/freeze.png"  # artifact of the parent run, from the report's charts


class MlflowLinks(NamedTuple):
    """Links to the pages of one search, relative to the server's address, so that they work on any address.

    ``trial_run_ids`` has the run id of each trial that has a run, by trial uid.
    """

    experiment_id: str
    run_id: str
    trial_run_ids: Mapping[str, str]

    def trial_run_id(self, trial: TrialRecord) -> str:
        """Return the run id of a trial; empty if it has no run."""
        return self.trial_run_ids.get(trial.trial_uid, "")

    def run_url(self, run_id: str) -> str:
        """Return the link to a run."""
        return f"#/experiments/{self.experiment_id}/runs/{run_id}?{UI_MODE}"

    def artifact_url(self, path: str) -> str:
        """Return the link to an artifact of the parent run."""
        return f"#/experiments/{self.experiment_id}/runs/{self.run_id}/artifacts/{path}?{UI_MODE}"

    def trials_url(self) -> str:
        """Return the link to the table of the search's trials with their scores, the best first."""
        return view_url(self.experiment_id, view_key(self.run_id))

    def markdown(self, best: TrialRecord) -> str:
        """Return the links and the freeze-depth chart for the description of the parent run."""
        run_id = self.trial_run_id(best)
        best_link = f"[Trial {best.number}, the winner]({self.run_url(run_id)}) · " if run_id else ""
        chart = urllib.parse.urlencode({"path": FREEZE_CHART, "run_uuid": self.run_id})
        return (
            f"{best_link}[all trials by score]({self.trials_url()}) · "
            f"[report]({self.artifact_url('report.html')}) · "
            f"[accuracy by freeze depth]({self.artifact_url(FREEZE_CHART)})\n\n"
            f"![accuracy by freeze depth](get-artifact?{chart})\n\n"
        )


def absolute_url(tracking_uri: str, relative_url: str) -> str:
    """Return the absolute URL of a link, without the credentials that the tracking URI may contain."""
    if not tracking_uri.startswith("http"):
        return f"{LOCAL_UI}/{relative_url}"
    return f"{without_credentials(tracking_uri).rstrip('/')}/{relative_url}"
