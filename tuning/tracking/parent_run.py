"""The parent run of a search: the run that ``mlflow run`` opened, or one of our own."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.atomic_write import write_atomically
from data.audit.contact_sheets import contact_sheets
from data.audit.report import Audit
from tuning.common.event_bus import warning
from tuning.common.names import NOTE_TAG, PARENT_RUN_TAG, REASON_TAG, RECIPE_PARAM_PREFIX
from tuning.common.redaction import Redactor
from tuning.common.search_paths import SearchPaths
from tuning.common.signals import SignalHandler
from tuning.tracking.async_writer import AsyncWriter
from tuning.tracking.connection import configure_mlflow_env
from tuning.tracking.environment import code_version, environment_info
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
from tuning.tracking.run_target import RunTarget
from tuning.tracking.system_metrics import log_system_metrics

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from data.dataset.dataset import Dataset

STOPPED_BY_USER = "the user asked to end"
MAX_DIGEST_LENGTH = 36  # characters of a data set's digest that MLflow stores


@dataclass(frozen=True)
class ParentRun:
    """The run that holds a search; what it is told goes through the writer, as what the trials' runs are told.

    Attributes:
        client: None where the search runs without a server (``tracking=offline``).
        run_id: the run; without a server a name of our own, until ``sync`` makes the run.
        experiment_id: empty without a server.
        writer: of this search.
        opened_by_mlflow: whether ``mlflow run`` opened it, and will end it once more.
    """

    client: MlflowClient | None
    run_id: str
    experiment_id: str
    writer: AsyncWriter
    owned_by_mlflow_run: bool = False

    @classmethod
    def open(cls, client: MlflowClient | None, run_id: str | None, name: str) -> ParentRun:
        """Go on in the run ``run_id``, or make one in the experiment ``name``; without a client, ``sync`` does later.

        Raises:
            TrackingError: there is no such run, or no such experiment can be made.
        """
        configure_mlflow_env()
        from mlflow.tracking.context.registry import resolve_tags

        target = RunTarget(
            search_id=run_id or uuid.uuid4().hex,
            experiment=name,
            run_id=run_id or "",
            experiment_id="",
            tags=resolve_tags(),
            time_ms=now_ms(),
        )
        if client is not None:
            target = target.resolve(client)
            target = target.model_copy(update={"search_id": target.run_id})
        return cls.of(target, client, opened_by_mlflow=run_id is not None)

    @classmethod
    def of(cls, target: RunTarget, client: MlflowClient | None, opened_by_mlflow: bool = False) -> ParentRun:
        """Return the parent run of a search; what is left in its spool is delivered.

        Raises:
            TrackingError: another process has the search's spool open.
        """
        paths = SearchPaths.from_search_id(target.search_id)
        tags = {**target.tags, PARENT_RUN_TAG: target.run_id}
        writer = AsyncWriter(client, target.experiment_id, tags, paths.outbox)
        target.write(paths.target)
        return cls(client, target.run_id or target.search_id, target.experiment_id, writer, opened_by_mlflow)

    def reopen(self) -> None:
        """Let the run of a search that goes on run again."""
        if self.client is not None:
            self.client.update_run(self.run_id, status="RUNNING")

    def log_search_metadata(self, recipe: Mapping[str, object], tags: Mapping[str, str], dataset: Dataset) -> None:
        """Log what was asked for, on which data, with which code, in which environment."""
        params = {RECIPE_PARAM_PREFIX + name: str(value) for name, value in recipe.items()}
        self.writer.send(SetParamsAndTags(PARENT_UID, params, {**tags, **code_version()}))
        self.log_dataset(dataset)
        self.log_text(json.dumps(environment_info(), indent=2), "environment.json")

    def log_audit(self, found: Audit) -> None:
        """Keep the audit as JSON and as contact sheets."""
        self.log_text(found.to_json(indent=2), "audit.json")
        sheets = self._paths.artifacts / "audit"
        sheets.mkdir(parents=True, exist_ok=True)
        for sheet in contact_sheets(found, sheets):
            self.log_file(sheet, "audit")

    def log_dataset(self, dataset: Dataset) -> None:
        """Log the data set and its fingerprint as the input of the run."""
        logged = {
            "name": dataset.name,
            "digest": dataset.fingerprint[:MAX_DIGEST_LENGTH],
            "source_type": "local",
            "source": json.dumps({"uri": str(dataset.root)}),
            "schema": json.dumps({"classes": list(dataset.classes)}),
            "profile": json.dumps(dataset.counts()),
        }
        self.writer.send(LogInput(PARENT_UID, logged))

    def log_epoch(self, epoch: int, metrics: Mapping[str, float], time_ms: int) -> None:
        """Log the metrics of one epoch."""
        self.writer.send(LogEpoch(PARENT_UID, epoch, metrics, time_ms=time_ms))

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Log final numbers."""
        self.log_epoch(0, metrics, now_ms())

    def log_text(self, text: str, path: str) -> None:
        """Log a text as the artifact ``path``."""
        self.writer.send(LogText(PARENT_UID, path, text))

    def log_file(self, file: Path, folder: str = "") -> None:
        """Log a file as an artifact in ``folder``; a copy is kept until it is delivered, with secrets hidden."""
        kept = file
        if self._paths.artifacts not in file.parents:
            kept = self._paths.artifacts / folder / file.name
            write_atomically(kept, file.read_bytes())
        Redactor().file(kept)
        self.writer.send(LogFile(PARENT_UID, str(kept), folder))

    def set_note(self, markdown: str) -> None:
        """Set the description that MLflow's UI shows on the run's page."""
        self.writer.send(SetParamsAndTags(PARENT_UID, {}, {NOTE_TAG: markdown}))

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags on the parent."""
        self.writer.send(SetParamsAndTags(PARENT_UID, {}, tags))

    def end(self, status: str, reason: str = "") -> None:
        """End the run as FINISHED, FAILED or KILLED; a reason becomes a tag."""
        self.writer.send(EndRun(PARENT_UID, status, {REASON_TAG: reason} if reason else {}))

    def end_killed(self) -> None:
        """End the run as KILLED, for good, because the user asked to."""
        self.end("KILLED", STOPPED_BY_USER)
        if self.owned_by_mlflow_run and self.client is not None:
            from tuning.tracking.status_guard import spawn_status_guard

            spawn_status_guard(self.run_id, "KILLED")

    def close(self) -> str:
        """Wait for what can be delivered; return a sentence about the rest, empty if there is none."""
        lost = self.writer.close()
        left = self.writer.pending_count
        if not left and not lost:
            return ""
        if self.client is None:
            return f"{left} messages to MLflow are kept; python -m tuning sync --run {self.run_id} delivers them"
        return (
            f"{len(lost)} messages to MLflow were not delivered ({lost[0]}{', ...' if len(lost) > 1 else ''}) but are "
            f"kept; python -m tuning sync --run {self.run_id} delivers them"
        )

    @property
    def _paths(self) -> SearchPaths:
        return SearchPaths.from_search_id(self.run_id)


@contextmanager
def parent_run_lifecycle(parent: ParentRun, interrupts: SignalHandler) -> Iterator[None]:
    """Within: the search of ``parent`` goes on; afterwards its run has ended, whatever happened, and is delivered."""
    try:
        with log_system_metrics(parent.writer):
            yield
    except BaseException as error:
        with interrupts.block_signals():
            if isinstance(error, KeyboardInterrupt) or interrupts.stop_requested:
                parent.end_killed()
            else:
                parent.end("FAILED", f"{type(error).__name__}: {error}")
            _close(parent)
        raise
    with interrupts.block_signals():
        if interrupts.stop_requested:
            parent.end_killed()
        else:
            parent.end("FINISHED")
        _close(parent)


def _close(parent: ParentRun) -> None:
    sentence = parent.close()
    if sentence:
        warning(sentence)
