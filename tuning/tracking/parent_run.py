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
from tuning.common.event_bus import warn
from tuning.common.redaction import Redactor
from tuning.common.search_paths import SearchPaths
from tuning.common.signals import Interrupts
from tuning.tracking.async_writer import Writer
from tuning.tracking.connection import settle_mlflow
from tuning.tracking.environment import code_version, environment
from tuning.tracking.mlflow_sink import PARENT_RUN
from tuning.tracking.operations import PARENT, Describe, EndRun, LogEpoch, LogFile, LogInput, LogText, now_ms
from tuning.tracking.run_target import Target
from tuning.tracking.system_metrics import watched

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from data.dataset.dataset import Dataset

INTERRUPTED = "the user asked to end"
RECIPE_PREFIX = "recipe."  # mlflow run logs our options under their own names, as quoted text, and allows no change
LONGEST_DIGEST = 36  # characters of a data set's digest that MLflow stores
NOTE = "mlflow.note.content"


@dataclass(frozen=True)
class ParentRun:
    """The run that holds a search; what it is told goes through the writer, as what the trials' runs are told.

    Attributes:
        client: None where the search runs without a server (``tracking=spool``).
        run_id: the run; without a server a name of our own, until ``sync`` makes the run.
        experiment_id: empty without a server.
        writer: of this search.
        opened_by_mlflow: whether ``mlflow run`` opened it, and will end it once more.
    """

    client: MlflowClient | None
    run_id: str
    experiment_id: str
    writer: Writer
    opened_by_mlflow: bool = False

    @classmethod
    def open(cls, client: MlflowClient | None, run_id: str | None, name: str) -> ParentRun:
        """Go on in the run ``run_id``, or make one in the experiment ``name``; without a client, ``sync`` does later.

        Raises:
            TrackingError: there is no such run, or no such experiment can be made.
        """
        settle_mlflow()
        from mlflow.tracking.context.registry import resolve_tags

        target = Target(
            search_id=run_id or uuid.uuid4().hex,
            experiment=name,
            run_id=run_id or "",
            experiment_id="",
            tags=resolve_tags(),
            time_ms=now_ms(),
        )
        if client is not None:
            target = target.settled(client)
            target = target.model_copy(update={"search_id": target.run_id})
        return cls.of(target, client, opened_by_mlflow=run_id is not None)

    @classmethod
    def of(cls, target: Target, client: MlflowClient | None, opened_by_mlflow: bool = False) -> ParentRun:
        """Return the parent run of a search; what is left in its spool is delivered.

        Raises:
            TrackingError: another process has the search's spool open.
        """
        paths = SearchPaths.of(target.search_id)
        tags = {**target.tags, PARENT_RUN: target.run_id}
        writer = Writer(client, target.experiment_id, tags, paths.spool)
        target.write(paths.target)
        return cls(client, target.run_id or target.search_id, target.experiment_id, writer, opened_by_mlflow)

    def reopen(self) -> None:
        """Let the run of a search that goes on run again."""
        if self.client is not None:
            self.client.update_run(self.run_id, status="RUNNING")

    def describe(self, recipe: Mapping[str, object], tags: Mapping[str, str], dataset: Dataset) -> None:
        """Log what was asked for, on which data, with which code, in which environment."""
        params = {RECIPE_PREFIX + name: str(value) for name, value in recipe.items()}
        self.writer.send(Describe(PARENT, params, {**tags, **code_version()}))
        self.log_dataset(dataset)
        self.log_text(json.dumps(environment(), indent=2), "environment.json")

    def log_audit(self, found: Audit) -> None:
        """Keep the audit as JSON and as contact sheets."""
        self.log_text(found.to_json(indent=2), "audit.json")
        sheets = self._paths.kept / "audit"
        sheets.mkdir(parents=True, exist_ok=True)
        for sheet in contact_sheets(found, sheets):
            self.log_file(sheet, "audit")

    def log_dataset(self, dataset: Dataset) -> None:
        """Log the data set and its fingerprint as the input of the run."""
        logged = {
            "name": dataset.name,
            "digest": dataset.fingerprint[:LONGEST_DIGEST],
            "source_type": "local",
            "source": json.dumps({"uri": str(dataset.root)}),
            "schema": json.dumps({"classes": list(dataset.classes)}),
            "profile": json.dumps(dataset.counts()),
        }
        self.writer.send(LogInput(PARENT, logged))

    def log_epoch(self, epoch: int, metrics: Mapping[str, float], time_ms: int) -> None:
        """Log the metrics of one epoch."""
        self.writer.send(LogEpoch(PARENT, epoch, metrics, time_ms=time_ms))

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Log final numbers."""
        self.log_epoch(0, metrics, now_ms())

    def log_text(self, text: str, path: str) -> None:
        """Log a text as the artifact ``path``."""
        self.writer.send(LogText(PARENT, path, text))

    def log_file(self, file: Path, folder: str = "") -> None:
        """Log a file as an artifact in ``folder``; a copy is kept until it is delivered, with secrets hidden."""
        kept = file
        if self._paths.kept not in file.parents:
            kept = self._paths.kept / folder / file.name
            write_atomically(kept, file.read_bytes())
        Redactor().file(kept)
        self.writer.send(LogFile(PARENT, str(kept), folder))

    def describe_result(self, markdown: str) -> None:
        """Set the description that MLflow's UI shows on the run's page."""
        self.writer.send(Describe(PARENT, {}, {NOTE: markdown}))

    def tag(self, **tags: str) -> None:
        """Set tags on the parent."""
        self.writer.send(Describe(PARENT, {}, tags))

    def end(self, status: str, reason: str = "") -> None:
        """End the run as FINISHED, FAILED or KILLED; a reason becomes a tag."""
        self.writer.send(EndRun(PARENT, status, {"reason": reason} if reason else {}))

    def kill(self) -> None:
        """End the run as KILLED, for good, because the user asked to."""
        self.end("KILLED", INTERRUPTED)
        if self.opened_by_mlflow and self.client is not None:
            from tuning.tracking.status_guard import have_last_word

            have_last_word(self.run_id, "KILLED")

    def close(self) -> str:
        """Wait for what can be delivered; return a sentence about the rest, empty if there is none."""
        lost = self.writer.close()
        left = self.writer.waiting
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
        return SearchPaths.of(self.run_id)


@contextmanager
def lifecycle(parent: ParentRun, interrupts: Interrupts) -> Iterator[None]:
    """Within: the search of ``parent`` goes on; afterwards its run has ended, whatever happened, and is delivered."""
    try:
        with watched(parent.writer):
            yield
    except BaseException as error:
        with interrupts.shielded():
            if isinstance(error, KeyboardInterrupt) or interrupts.requested:
                parent.kill()
            else:
                parent.end("FAILED", f"{type(error).__name__}: {error}")
            _close(parent)
        raise
    with interrupts.shielded():
        if interrupts.requested:
            parent.kill()
        else:
            parent.end("FINISHED")
        _close(parent)


def _close(parent: ParentRun) -> None:
    sentence = parent.close()
    if sentence:
        warn(sentence)
