"""Target of an outbox: the experiment and the parent run, stored beside it so that ``sync`` can deliver later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from data.atomic_write import write_atomically
from data.errors import TrackingError
from data.frozen_model import FrozenModel
from tuning.common.names import SEARCH_UID_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


class RunTarget(FrozenModel):
    """The experiment and the parent run of one search.

    Attributes:
        search_id: name of the search's folder; equal to the parent run's id unless the search started offline.
        experiment: name of the experiment; it is created if it does not exist.
        run_id: id of the parent run; empty for a search that started offline.
        experiment_id: id of the experiment; empty for a search that started offline.
        tags: tags of a newly created parent run and of every trial's run.
        time_ms: start of the search, as Unix time in milliseconds.
    """

    search_id: str
    experiment: str
    run_id: str
    experiment_id: str
    tags: Mapping[str, str]
    time_ms: int

    def save(self, path: Path) -> None:
        """Write the target to a file."""
        write_atomically(path, self.to_json().encode())

    def resolve(self, client: MlflowClient) -> RunTarget:
        """Return the target with the ids of its experiment and parent run on the server; create missing ones.

        Raises:
            TrackingError: the parent run of the search does not exist on this server.
        """
        if self.run_id:
            return self.model_copy(update={"experiment_id": experiment_id_of_run(client, self.run_id)})
        experiment_id = get_or_create_experiment(client, self.experiment)
        runs = client.search_runs([experiment_id], f"tags.`{SEARCH_UID_TAG}` = '{self.search_id}'", max_results=1)
        run = runs[0] if runs else self._create_run(client, experiment_id)
        return self.model_copy(update={"experiment_id": experiment_id, "run_id": str(run.info.run_id)})

    def _create_run(self, client: MlflowClient, experiment_id: str) -> Run:
        tags = {**self.tags, SEARCH_UID_TAG: self.search_id}
        return client.create_run(experiment_id, start_time=self.time_ms, tags=tags, run_name=self.experiment)


def experiment_id_of_run(client: MlflowClient, run_id: str) -> str:
    """Return the id of a run's experiment.

    Raises:
        TrackingError: the run does not exist.
    """
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_run(run_id).info.experiment_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise TrackingError(
            f"MLFLOW_RUN_ID, or the run of the search, must exist in the current tracking store, got {run_id!r}; "
            "unset MLFLOW_RUN_ID, or set MLFLOW_TRACKING_URI to the store of the run"
        ) from None


def get_or_create_experiment(client: MlflowClient, name: str) -> str:
    """Return the id of the experiment ``name``; create it if needed, also if two searches do so concurrently."""
    from mlflow.exceptions import MlflowException

    existing = client.get_experiment_by_name(name)
    if existing is not None:
        if existing.lifecycle_stage == "deleted":
            raise TrackingError(
                f"experiment {name!r} has been deleted in MLflow; restore it (mlflow experiments restore) or use "
                "another --name"
            )
        return str(existing.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException:
        created_by_other = client.get_experiment_by_name(name)
        if created_by_other is None:
            raise
        return str(created_by_other.experiment_id)
