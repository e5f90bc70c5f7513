"""Parent run of a search: the run that ``mlflow run`` created, or a new one.

Its target, the experiment and the run, is stored beside the outbox, so that ``sync`` can deliver later.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.atomic_write import write_atomically
from data.audit.contact_sheets import contact_sheets
from data.audit.report import Audit
from data.errors import TrackingError
from data.frozen_model import FrozenModel
from tuning.common.names import (
    LOGGED_ARTIFACTS_TAG,
    PARENT_RUN_TAG,
    REASON_TAG,
    RECIPE_PARAM_PREFIX,
    RUN_NAME_TAG,
    SEARCH_UID_TAG,
)
from tuning.common.redaction import Redactor
from tuning.common.search_paths import SearchPaths
from tuning.common.signals import SignalHandler
from tuning.tracking.async_writer import AsyncWriter
from tuning.tracking.dataset_input import dataset_fields
from tuning.tracking.environment import code_version, environment_info
from tuning.tracking.experiment import describe_experiment
from tuning.tracking.operations import (
    PARENT_UID,
    EndRun,
    LogEpoch,
    LogFile,
    LogInput,
    LogText,
    SetParamsAndTags,
    now_ms,
)
from tuning.tracking.system_metrics import log_system_metrics

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from data.dataset.dataset import Dataset

logger = logging.getLogger(__name__)

STOPPED_BY_USER = "stopped by the user"
RESUME_STOPPED_BY_USER = "the search had finished; the user stopped its resume"


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

    def resolve(self, client: MlflowClient) -> RunTarget:
        """Return the target with the ids of its experiment and parent run on the server; create missing ones.

        Raises:
            TrackingError: the parent run of the search does not exist on this server.
        """
        if self.run_id:
            experiment_id = experiment_id_of_run(client, self.run_id)
            describe_experiment(client, experiment_id, self.run_id)
            return self.model_copy(update={"experiment_id": experiment_id})
        experiment_id = get_or_create_experiment(client, self.experiment)
        runs = client.search_runs([experiment_id], f"tags.`{SEARCH_UID_TAG}` = '{self.search_id}'", max_results=1)
        tags = {**self.tags, SEARCH_UID_TAG: self.search_id}
        run = (
            runs[0]
            if runs
            else client.create_run(experiment_id, start_time=self.time_ms, tags=tags, run_name=self.experiment)
        )
        describe_experiment(client, experiment_id, str(run.info.run_id))
        return self.model_copy(update={"experiment_id": experiment_id, "run_id": str(run.info.run_id)})


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


def find_searches(run: str) -> list[SearchPaths]:
    """Return the search with the parent run ``run``, or, if it is empty, all searches of the current state schema.

    Raises:
        TrackingError: this machine has no search with this parent run.
    """
    searches = [paths for paths in SearchPaths.all() if paths.target.exists()]
    if not run:
        return [paths for paths in searches if paths.has_current_schema]
    matches = [
        paths for paths in searches if run in {paths.root.name, RunTarget.from_json(paths.target.read_text()).run_id}
    ]
    if not matches:
        raise TrackingError(
            f"run must be the parent run of a search on this machine, got {run!r}, which has no folder here; "
            "set FREEZELINE_HOME to the value that the search used"
        )
    return matches


@dataclass(frozen=True)
class ParentRun:
    """Parent run of a search; all changes go through the async writer, as for the trials' runs.

    Attributes:
        client: client of the tracking server; None for an offline search (``tracking=offline``).
        run_id: id of the run; for an offline search the search id, until ``sync`` creates the run.
        experiment_id: id of the experiment; empty for an offline search.
        writer: the async writer of the search.
        owned_by_mlflow_run: whether ``mlflow run`` created the run and will set its final status again.
    """

    client: MlflowClient | None
    run_id: str
    experiment_id: str
    writer: AsyncWriter
    owned_by_mlflow_run: bool = False

    @classmethod
    def open(
        cls, client: MlflowClient | None, run_id: str | None, name: str, started_s: float | None = None
    ) -> ParentRun:
        """Use the run ``run_id``, or create one in the experiment ``name``; offline, ``sync`` creates it later.

        A new run starts at ``started_s``, Unix time in seconds, by default now: its duration in MLflow's UI is then
        that of the whole command.

        Raises:
            TrackingError: the run does not exist, or the experiment cannot be created.
        """
        from mlflow.tracking.context.registry import resolve_tags

        target = RunTarget(
            search_id=run_id or uuid.uuid4().hex,
            experiment=name,
            run_id=run_id or "",
            experiment_id="",
            tags=resolve_tags(),
            time_ms=now_ms() if started_s is None else int(1000 * started_s),
        )
        if client is not None:
            target = target.resolve(client)
            target = target.model_copy(update={"search_id": target.run_id})
        return cls.from_target(target, client, owned_by_mlflow_run=run_id is not None)

    @classmethod
    def from_target(
        cls, target: RunTarget, client: MlflowClient | None, owned_by_mlflow_run: bool = False
    ) -> ParentRun:
        """Return the parent run of a search and start to deliver the pending operations of its outbox.

        Raises:
            TrackingError: another process has the search's outbox open.
        """
        paths = SearchPaths.from_search_id(target.search_id)
        tags = {**target.tags, PARENT_RUN_TAG: target.run_id}
        writer = AsyncWriter(client, target.experiment_id, tags, paths.outbox)
        write_atomically(paths.target, target.to_json().encode())
        return cls(client, target.run_id or target.search_id, target.experiment_id, writer, owned_by_mlflow_run)

    def reopen(self) -> bool:
        """Set the run of a resumed search to RUNNING; return whether it had finished."""
        if self.client is None:
            return False
        was_finished = bool(self.client.get_run(self.run_id).info.status == "FINISHED")
        self.client.update_run(self.run_id, status="RUNNING")
        return was_finished

    def log_search_metadata(self, recipe: Mapping[str, object], tags: Mapping[str, str], dataset: Dataset) -> None:
        """Log the recipe, the data set, the code version and the environment."""
        params = {RECIPE_PARAM_PREFIX + name: str(value) for name, value in recipe.items()}
        self.writer.send(SetParamsAndTags(PARENT_UID, params, {**tags, **code_version()}))
        self.writer.send(LogInput(PARENT_UID, dataset_fields(dataset)))
        self.log_text(json.dumps(environment_info(), indent=2), "environment.json")

    def log_audit(self, audit: Audit) -> None:
        """Log the audit as JSON and as contact sheets."""
        self.log_text(audit.to_json(indent=2), "audit.json")
        folder = self._paths.artifacts / "audit"
        folder.mkdir(parents=True, exist_ok=True)
        for sheet in contact_sheets(audit, folder):
            self.log_file(sheet, "audit")

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of one epoch."""
        self.writer.send(LogEpoch(PARENT_UID, epoch, metrics))

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Log final metrics."""
        self.log_epoch(0, metrics)

    def log_text(self, text: str, path: str) -> None:
        """Log a text as the artifact ``path``."""
        self.writer.send(LogText(PARENT_UID, path, text))

    def log_file(self, file: Path, folder: str = "") -> None:
        """Log a file as an artifact in ``folder``; a copy with secrets masked is kept for the delivery."""
        copy = file
        if self._paths.artifacts not in file.parents:
            copy = self._paths.artifacts / folder / file.name
            write_atomically(copy, file.read_bytes())
        Redactor().file(copy)
        self.writer.send(LogFile(PARENT_UID, str(copy), folder))

    def rename(self, name: str) -> None:
        """Set the name of the run."""
        self.set_tags({RUN_NAME_TAG: name})

    def log_table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], path: str) -> None:
        """Log a table as the artifact ``path``, which the UI shows as a table."""
        self.log_text(json.dumps({"columns": list(columns), "data": [list(row) for row in rows]}), path)
        self.set_tags({LOGGED_ARTIFACTS_TAG: json.dumps([{"path": path, "type": "table"}])})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the parent run."""
        self.writer.send(SetParamsAndTags(PARENT_UID, {}, tags))

    def end(self, status: str, reason: str = "") -> None:
        """End the run as FINISHED, FAILED or KILLED; the reason is stored as a tag."""
        self.writer.send(EndRun(PARENT_UID, status, {REASON_TAG: reason} if reason else {}))

    def end_killed(self) -> None:
        """End the run as KILLED because the user stopped the search."""
        self.end("KILLED", STOPPED_BY_USER)
        if self.owned_by_mlflow_run and self.client is not None:
            from tuning.tracking.status_guard import spawn_status_guard

            spawn_status_guard(self.run_id, "KILLED")

    def close(self) -> str:
        """Deliver the pending operations; return a message about undelivered ones, empty if there are none."""
        undelivered = self.writer.close()
        num_pending = self.writer.pending_count
        if not num_pending and not undelivered:
            return ""
        next_step = f"run freezeline sync {self.run_id} to deliver them"
        if self.client is None:
            return f"{num_pending} operations for MLflow are in the outbox; {next_step}"
        examples = f"{undelivered[0]}{', ...' if len(undelivered) > 1 else ''}"
        return f"{len(undelivered)} operations were not delivered to MLflow ({examples}); {next_step}"

    @property
    def _paths(self) -> SearchPaths:
        return SearchPaths.from_search_id(self.run_id)


@contextmanager
def parent_run_lifecycle(parent: ParentRun, signals: SignalHandler, was_finished: bool = False) -> Iterator[None]:
    """Context manager that ends the run of ``parent`` with its final status, also on errors, and delivers it.

    A search that had finished stays finished if the user stops its resume, because its result is still valid.
    """
    status, reason = "FINISHED", ""
    try:
        with log_system_metrics(parent.writer):
            yield
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except BaseException as error:
        status, reason = "FAILED", f"{type(error).__name__}: {error}"
        raise
    finally:
        with signals.block_signals():
            if status != "KILLED" and not signals.stop_requested:
                parent.end(status, reason)
            elif was_finished:
                parent.end("FINISHED", RESUME_STOPPED_BY_USER)
            else:
                parent.end_killed()
            if message := parent.close():
                logger.warning(message)
