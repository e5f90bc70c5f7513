"""Where a search's runs belong: kept beside its spool, so that another process can deliver what is left."""

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
        search_id: name of the search's folder; the parent run's id where there was a server from the start.
        experiment: name of the experiment, made if need be.
        run_id: the parent run; empty until a server was there.
        experiment_id: empty until a server was there.
        tags: of the parent run when it is made, and of every trial's run.
        time_ms: when the search began, in milliseconds since 1970.
    """

    search_id: str
    experiment: str
    run_id: str
    experiment_id: str
    tags: Mapping[str, str]
    time_ms: int

    def write(self, path: Path) -> None:
        """Keep it."""
        write_atomically(path, self.to_json().encode())

    def resolve(self, client: MlflowClient) -> RunTarget:
        """Return it with the parent run and the experiment that it has on the client's server; made if need be.

        Raises:
            TrackingError: the run that the search began in is not there.
        """
        if self.run_id:
            return self.model_copy(update={"experiment_id": experiment_id_of_run(client, self.run_id)})
        experiment_id = get_or_create_experiment(client, self.experiment)
        found = client.search_runs([experiment_id], f"tags.`{SEARCH_UID_TAG}` = '{self.search_id}'", max_results=1)
        run = found[0] if found else self._make_run(client, experiment_id)
        return self.model_copy(update={"experiment_id": experiment_id, "run_id": str(run.info.run_id)})

    def _make_run(self, client: MlflowClient, experiment_id: str) -> Run:
        tags = {**self.tags, SEARCH_UID_TAG: self.search_id}
        return client.create_run(experiment_id, start_time=self.time_ms, tags=tags, run_name=self.experiment)


def experiment_id_of_run(client: MlflowClient, run_id: str) -> str:
    """Return the experiment that a run is in.

    Raises:
        TrackingError: there is no such run.
    """
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_run(run_id).info.experiment_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise TrackingError(
            f"MLFLOW_RUN_ID, or the search to sync, must be a run of the tracking store in use, got {run_id!r}, which "
            "is not there; unset MLFLOW_RUN_ID, or set MLFLOW_TRACKING_URI to where the run is"
        ) from None


def get_or_create_experiment(client: MlflowClient, name: str) -> str:
    """Return the id of the experiment ``name``, made if need be, also when two searches make it at once."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            raise TrackingError(
                f"experiment {name!r} is deleted in MLflow; restore it (mlflow experiments restore) or give --name."
            )
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException:
        made = client.get_experiment_by_name(name)
        if made is None:
            raise
        return str(made.experiment_id)
