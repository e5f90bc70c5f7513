"""Carrying out one operation on the tracking server; a repeat changes nothing."""

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

MAX_PARAM_LENGTH = 6000  # characters; MLflow refuses a longer value
METRICS_PER_CALL = 1000  # MLflow's limit for one batch
PARAMS_PER_CALL = 100  # MLflow's limit for one batch
MAX_TAG_LENGTH = 8000  # characters; MLflow cuts or refuses a longer value
# What a server says of a request that it will never take. Not BAD_REQUEST: a database that restarts is told as that.
PERMANENT_ERROR_CODES = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"}


def is_permanent_error(error: Exception) -> bool:
    """Return whether the same call would fail for ever; else the server is away, or busy, or being started."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error.error_code in PERMANENT_ERROR_CODES
    return isinstance(error, KeyError | TypeError | FileNotFoundError)


def is_unavailable(error: Exception) -> bool:
    """Return whether an error says that the server, or what is behind it, does not do its work now."""
    import requests
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error.error_code not in PERMANENT_ERROR_CODES
    return isinstance(error, requests.RequestException | ConnectionError | TimeoutError)


class MlflowSink:
    """Tells the runs of one search what operations say; remembers which run each trial has.

    Args:
        client: of the server.
        experiment_id: where the trials' runs are made.
        parent_tags: tags that every trial's run carries, the parent's id among them.
        spool: which remembers the runs that were made, and how each was started.
    """

    def __init__(
        self, client: MlflowClient, experiment_id: str, parent_tags: Mapping[str, str], outbox: Outbox
    ) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._parent_tags = parent_tags
        self._outbox = outbox
        self._maybe_created = set(outbox.starts)  # trials whose run an earlier try, or process, may have made

    def apply(self, operations: Sequence[Operation]) -> None:
        """Carry out one operation, or several epochs of one run in one call; raises whatever the client raises."""
        first = operations[0]
        if isinstance(first, StartRun):
            self._outbox.starts[first.trial_uid] = first
            self._start(first)
            return
        run_id = self._run_id(first.trial_uid)
        match first:
            case LogEpoch():
                self._log(run_id, [one for one in operations if isinstance(one, LogEpoch)])
            case SetParamsAndTags():
                self._describe(run_id, first.params, first.tags)
            case LogInput():
                self._log_input(run_id, first.dataset)
            case LogText():
                self._client.log_text(run_id, first.text, first.path)
            case LogFile():
                self._client.log_artifact(run_id, first.file, first.folder or None)
            case EndRun():
                self._describe(run_id, {}, first.tags)
                self._client.set_terminated(run_id, first.status, end_time=first.time_ms)

    def _run_id(self, trial_uid: str) -> str:
        """Return the run; a trial's is made now if it could not be made when the trial started."""
        if trial_uid == PARENT_UID:
            return self._parent_tags[PARENT_RUN_TAG]
        if trial_uid not in self._outbox.run_ids:
            self._make(self._outbox.starts[trial_uid])
        return self._outbox.run_ids[trial_uid]

    def _start(self, operation: StartRun) -> None:
        """Make the trial's run; one that is there, of a search that is resumed, runs again."""
        if operation.trial_uid in self._outbox.run_ids or not self._make(operation):
            run_id = self._outbox.run_ids[operation.trial_uid]
            self._client.update_run(run_id, status="RUNNING")
            self._describe(run_id, operation.params, operation.tags)

    def _make(self, operation: StartRun) -> bool:
        """Find the trial's run or make it; return whether it was made."""
        from mlflow.entities import Param

        uid = operation.trial_uid
        run_id = find_run(self._client, self._experiment_id, uid) if uid in self._maybe_created else None
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

    def _describe(self, run_id: str, params: Mapping[str, object], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        pairs = to_params(params)
        labels = [RunTag(name, text[:MAX_TAG_LENGTH]) for name, text in tags.items()]
        for start in range(0, max(len(pairs), 1 if labels else 0), PARAMS_PER_CALL):
            part = [Param(*pair) for pair in pairs[start : start + PARAMS_PER_CALL]]
            self._client.log_batch(run_id, params=part, tags=[] if start else labels)

    def _log(self, run_id: str, epochs: Sequence[LogEpoch]) -> None:
        from mlflow.entities import Metric

        points = [
            Metric(name, value, epoch.time_ms, epoch.step)
            for epoch in epochs
            for name, value in epoch.metrics.items()
            if not math.isinf(value)  # stored as 1.8e308, which no plot survives
        ]
        for start in range(0, len(points), METRICS_PER_CALL):
            self._client.log_batch(run_id, metrics=points[start : start + METRICS_PER_CALL])
        self._describe(run_id, {name: value for epoch in epochs for name, value in epoch.params.items()}, {})

    def _log_input(self, run_id: str, dataset: Mapping[str, str]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        tag = InputTag("mlflow.data.context", "training")
        self._client.log_inputs(run_id, [DatasetInput(Dataset(**dataset), [tag])])


def find_run(client: MlflowClient, experiment_id: str, trial_uid: str) -> str | None:
    """Return the id of the run that carries ``trial_uid``, or None."""
    runs = client.search_runs([experiment_id], f"tags.`{TRIAL_UID_TAG}` = '{trial_uid}'", max_results=1)
    return str(runs[0].info.run_id) if runs else None


def to_params(params: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return parameters as MLflow stores them."""
    return [(name, str(value)[:MAX_PARAM_LENGTH]) for name, value in params.items()]
