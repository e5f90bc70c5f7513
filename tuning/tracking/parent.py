"""The parent run of a search: the run that ``mlflow run`` opened, or one of our own."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.audit import Audit, contact_sheets
from data.errors import TrackingError
from tuning.interrupts import Interrupts
from tuning.tracking.operations import now_ms

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from data.dataset import Dataset

REPOSITORY = Path(__file__).resolve().parents[2]
REACH_TIMEOUT_S = 5.0
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
INTERRUPTED = "the user asked to end"
RECIPE_PREFIX = "recipe."  # mlflow run logs our options under their own names, as quoted text, and allows no change
LONGEST_DIGEST = 36  # characters of a data set's digest that MLflow stores


def take_run_id() -> str | None:
    """Return the run that ``mlflow run`` opened for us, and take it out of the environment.

    Every Ray worker that inherited it would log into the parent, rename it and end it.
    """
    return os.environ.pop("MLFLOW_RUN_ID", None) or None


def connect() -> MlflowClient:
    """Return a client of the tracking server (or local database) that the environment names.

    Raises:
        TrackingError: if it can't be reached.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    uri = mlflow.get_tracking_uri()
    if uri.startswith(("http://", "https://")):
        _check_server(uri)
    elif "@" in uri:
        _check_database(uri)
    try:
        client = mlflow.MlflowClient()
        client.search_experiments(max_results=1)
    except Exception as error:  # any store may sit behind the URI
        raise TrackingError(
            f"the tracking store {hide_password(uri)} must be usable, but it says {type(error).__name__}; "
            "correct MLFLOW_TRACKING_URI or unset it for a local database."
        ) from error
    return client


def tracking_uri() -> str:
    """Return the URI of the tracking store that the environment names."""
    import mlflow

    return str(mlflow.get_tracking_uri())


def _check_server(uri: str) -> None:
    """Ask for /health with a short timeout: MLflow's own retries take minutes to give up."""
    import requests

    try:
        requests.get(uri.rstrip("/") + "/health", timeout=REACH_TIMEOUT_S).raise_for_status()
    except requests.RequestException as error:
        raise TrackingError(
            f"the MLflow server must answer before a search starts, but {hide_password(uri)} does not "
            f"({type(error).__name__}); start it, correct MLFLOW_TRACKING_URI, or unset it for a local database."
        ) from None


def _check_database(uri: str) -> None:
    """Knock at a database's port: MLflow tries for minutes when nobody is there."""
    parts = urllib.parse.urlsplit(uri)
    port = parts.port or DATABASE_PORTS.get(parts.scheme.partition("+")[0])
    if parts.hostname is None or port is None:
        return
    try:
        socket.create_connection((parts.hostname, port), REACH_TIMEOUT_S).close()
    except OSError as error:
        raise TrackingError(
            f"the tracking database must answer before a search starts, but {hide_password(uri)} does not ({error}); "
            "start it, correct MLFLOW_TRACKING_URI, or unset it for a local database"
        ) from None


def hide_password(uri: str) -> str:
    """Return the URI without the password that it may carry."""
    parts = urllib.parse.urlsplit(uri)
    if not parts.password:
        return uri
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":***@")))


@dataclass(frozen=True)
class ParentRun:
    """The run that holds a search; every write is one call to the tracking server."""

    client: MlflowClient
    run_id: str
    experiment_id: str
    opened_by_mlflow: bool = False

    @classmethod
    def open(cls, client: MlflowClient, run_id: str | None, name: str) -> ParentRun:
        """Go on in the run ``run_id``, or make one in the experiment ``name``."""
        if run_id is not None:
            return cls(client, run_id, _experiment_of(client, run_id), opened_by_mlflow=True)
        from mlflow.tracking.context.registry import resolve_tags

        experiment_id = experiment(client, name)
        run = client.create_run(experiment_id, run_name=name, tags=resolve_tags())
        return cls(client, run.info.run_id, experiment_id)

    def child_tags(self) -> dict[str, str]:
        """Return the tags of every trial's run: who, with which code, below this run."""
        from mlflow.tracking.context.registry import resolve_tags

        return {**resolve_tags(), "mlflow.parentRunId": self.run_id}

    def describe(self, recipe: Mapping[str, object], tags: Mapping[str, str], dataset: Dataset) -> None:
        """Log what was asked for, on which data, with which code, in which environment."""
        from mlflow.entities import Param, RunTag

        self.client.log_batch(
            self.run_id,
            params=[Param(RECIPE_PREFIX + name, str(value)) for name, value in recipe.items()],
            tags=[RunTag(name, text) for name, text in {**tags, **code_version()}.items()],
        )
        self.log_dataset(self.run_id, dataset)
        self.client.log_text(self.run_id, json.dumps(environment(), indent=2), "environment.json")

    def log_audit(self, found: Audit) -> None:
        """Keep the audit as JSON and as contact sheets."""
        self.client.log_text(self.run_id, found.to_json(indent=2), "audit.json")
        with tempfile.TemporaryDirectory() as folder:
            for sheet in contact_sheets(found, Path(folder)):
                self.client.log_artifact(self.run_id, str(sheet), "audit")

    def log_dataset(self, run_id: str, dataset: Dataset) -> None:
        """Log the data set and its fingerprint as the input of a run."""
        from mlflow.entities import Dataset as LoggedDataset
        from mlflow.entities import DatasetInput, InputTag

        logged = LoggedDataset(
            name=dataset.name,
            digest=dataset.fingerprint[:LONGEST_DIGEST],
            source_type="local",
            source=json.dumps({"uri": str(dataset.root)}),
            schema=json.dumps({"classes": list(dataset.classes)}),
            profile=json.dumps(dataset.counts()),
        )
        self.client.log_inputs(run_id, [DatasetInput(logged, [InputTag("mlflow.data.context", "training")])])

    def log_epoch(self, epoch: int, metrics: Mapping[str, float], time_ms: int) -> None:
        """Log the metrics of one epoch."""
        from mlflow.entities import Metric

        points = [Metric(name, value, time_ms, epoch) for name, value in metrics.items()]
        self.client.log_batch(self.run_id, metrics=points)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Log final numbers."""
        self.log_epoch(0, metrics, now_ms())

    def describe_result(self, markdown: str) -> None:
        """Set the description that MLflow's UI shows on the run's page."""
        self.client.set_tag(self.run_id, "mlflow.note.content", markdown)

    def tag(self, **tags: str) -> None:
        """Set tags on the parent."""
        for name, text in tags.items():
            self.client.set_tag(self.run_id, name, text)

    def end(self, status: str, reason: str = "") -> None:
        """End the run as FINISHED, FAILED or KILLED; a reason becomes a tag."""
        if reason:
            self.tag(reason=reason)
        self.client.set_terminated(self.run_id, status)

    def kill(self) -> None:
        """End the run as KILLED, for good, because the user asked to."""
        self.end("KILLED", INTERRUPTED)
        if self.opened_by_mlflow:
            from tuning.tracking.last_word import have_last_word

            have_last_word(self.run_id, "KILLED")


@contextmanager
def lifecycle(parent: ParentRun, interrupts: Interrupts) -> Iterator[None]:
    """Within: the search of ``parent`` goes on; afterwards its run has ended, whatever happened."""
    try:
        yield
    except BaseException as error:
        with interrupts.shielded():
            if isinstance(error, KeyboardInterrupt) or interrupts.requested:
                parent.kill()
            else:
                parent.end("FAILED", f"{type(error).__name__}: {error}")
        raise
    with interrupts.shielded():
        if interrupts.requested:
            parent.kill()
        else:
            parent.end("FINISHED")


def _experiment_of(client: MlflowClient, run_id: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_run(run_id).info.experiment_id)
    except MlflowException:
        raise TrackingError(
            f"MLFLOW_RUN_ID must be a run of {hide_password(tracking_uri())}, got {run_id!r}, which is not there; "
            "unset it"
        ) from None


def experiment(client: MlflowClient, name: str) -> str:
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


def code_version() -> dict[str, str]:
    """Return the git commit of this project, and whether the checkout differs from it; empty outside git."""
    commit = _git("rev-parse", "HEAD")
    return {"git_commit": commit, "git_dirty": str(bool(_git("status", "--porcelain"))).lower()} if commit else {}


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603
            ["git", *arguments],  # noqa: S607
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def environment() -> dict[str, object]:
    """Return the interpreter, the machine and the version of every installed package."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "packages": {
            distribution.metadata["Name"]: distribution.version for distribution in importlib.metadata.distributions()
        },
    }
