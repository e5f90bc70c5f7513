"""MLflow sink: applies operations to the tracking server; applying an operation twice has no further effect."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tuning.common.names import PARENT_RUN_TAG, TRIAL_UID_TAG
from tuning.tracking.operations import (
    PARENT_UID,
    EndRun,
    LogEpoch,
    LogFile,
    LogInput,
    LogText,
    Operation,
    SetParamsAndTags,
    StartRun,
)
from tuning.tracking.outbox import Outbox

if TYPE_CHECKING:
    from mlflow import MlflowClient

MAX_PARAM_LENGTH = 6000  # characters; MLflow rejects longer values
METRICS_PER_CALL = 1000  # MLflow's limit for one batch
MAX_TAG_LENGTH = 8000  # characters; MLflow truncates or rejects longer values
# Error codes of requests that can never succeed. BAD_REQUEST is not one: MLflow also reports a restarting database so.
PERMANENT_ERROR_CODES = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"}


def is_permanent_error(error: Exception) -> bool:
    """Return whether a retry would fail too; otherwise the server is unavailable, busy or starting."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error.error_code in PERMANENT_ERROR_CODES
    return isinstance(error, KeyError | TypeError | FileNotFoundError)


def is_unavailable(error: Exception) -> bool:
    """Return whether an error means that the server, its database or its artifact store is unavailable."""
    import requests
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error.error_code not in PERMANENT_ERROR_CODES
    return isinstance(error, requests.RequestException | ConnectionError | TimeoutError)


class MlflowSink:
    """Applies operations to the runs of one search; stores the run id of each trial in the outbox.

    The trials' runs are created in experiment ``experiment_id`` with ``parent_tags``, which hold the parent run's id.
    """

    def __init__(
        self, client: MlflowClient, experiment_id: str, parent_tags: Mapping[str, str], outbox: Outbox
    ) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._parent_tags = parent_tags
        self._outbox = outbox
        self._maybe_created = set(outbox.starts)  # by an earlier attempt or process

    def apply(self, operations: Sequence[Operation]) -> None:
        """Apply one operation, or several epochs of one run in one call; errors of the client are raised."""
        first = operations[0]
        if isinstance(first, StartRun):
            self._outbox.starts[first.trial_uid] = first
            self._start_run(first)
            return
        run_id = self._run_id(first.trial_uid)
        match first:
            case LogEpoch():
                self._log_epochs(run_id, [epoch for epoch in operations if isinstance(epoch, LogEpoch)])
            case SetParamsAndTags():
                self._log_params_and_tags(run_id, first.params, first.tags)
            case LogInput():
                self._log_input(run_id, first.dataset)
            case LogText():
                self._client.log_text(run_id, first.text, first.path)
            case LogFile():
                self._client.log_artifact(run_id, first.file, first.folder or None)
            case EndRun():
                self._log_params_and_tags(run_id, {}, first.tags)
                self._client.set_terminated(run_id, first.status, end_time=first.time_ms)

    def _run_id(self, trial_uid: str) -> str:
        """Return the run id; create a trial's run if that failed when the trial started."""
        if trial_uid == PARENT_UID:
            return self._parent_tags[PARENT_RUN_TAG]
        if trial_uid not in self._outbox.run_ids:
            self._get_or_create_run(self._outbox.starts[trial_uid])
        return self._outbox.run_ids[trial_uid]

    def _start_run(self, operation: StartRun) -> None:
        """Create the trial's run, or set an existing one (of a resumed search) to RUNNING."""
        if operation.trial_uid in self._outbox.run_ids or not self._get_or_create_run(operation):
            run_id = self._outbox.run_ids[operation.trial_uid]
            self._client.update_run(run_id, status="RUNNING")
            self._log_params_and_tags(run_id, operation.params, operation.tags)

    def _get_or_create_run(self, operation: StartRun) -> bool:
        """Find or create the trial's run; return whether it was created."""
        from mlflow.entities import Param

        uid = operation.trial_uid
        run_id = find_trial_run(self._client, self._experiment_id, uid) if uid in self._maybe_created else None
        self._maybe_created.add(uid)
        is_new = run_id is None
        if run_id is None:
            tags = {**self._parent_tags, **operation.tags, TRIAL_UID_TAG: uid}
            run = self._client.create_run(
                self._experiment_id, start_time=operation.time_ms, tags=tags, run_name=operation.name
            )
            run_id = str(run.info.run_id)
            self._client.log_batch(run_id, params=[Param(*pair) for pair in to_params(operation.params)])
        self._outbox.run_ids[uid] = run_id
        self._outbox.record_run(uid, run_id)
        return is_new

    def _log_params_and_tags(self, run_id: str, params: Mapping[str, object], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        if params or tags:
            run_tags = [RunTag(name, value[:MAX_TAG_LENGTH]) for name, value in tags.items()]
            self._client.log_batch(run_id, params=[Param(*pair) for pair in to_params(params)], tags=run_tags)

    def _log_epochs(self, run_id: str, epochs: Sequence[LogEpoch]) -> None:
        from mlflow.entities import Metric

        points = [
            Metric(name, value, epoch.time_ms, epoch.step)
            for epoch in epochs
            for name, value in epoch.metrics.items()
            if not math.isinf(value)  # MLflow stores inf as 1.8e308, which breaks its charts
        ]
        for start in range(0, len(points), METRICS_PER_CALL):
            self._client.log_batch(run_id, metrics=points[start : start + METRICS_PER_CALL])
        self._log_params_and_tags(run_id, {name: value for epoch in epochs for name, value in epoch.params.items()}, {})

    def _log_input(self, run_id: str, dataset: Mapping[str, str]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        tag = InputTag("mlflow.data.context", "training")
        self._client.log_inputs(run_id, [DatasetInput(Dataset(**dataset), [tag])])


def find_trial_run(client: MlflowClient, experiment_id: str, trial_uid: str) -> str | None:
    """Return the id of the run with this ``trial_uid`` tag, or None."""
    runs = client.search_runs([experiment_id], f"tags.`{TRIAL_UID_TAG}` = '{trial_uid}'", max_results=1)
    return str(runs[0].info.run_id) if runs else None


def to_params(params: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return the parameters as MLflow stores them: names and truncated texts."""
    return [(name, str(value)[:MAX_PARAM_LENGTH]) for name, value in params.items()]
