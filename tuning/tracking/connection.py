"""Connecting to the MLflow tracking server or database."""

from __future__ import annotations

import hashlib
import socket
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from data.errors import TrackingError
from data.home import state_dir
from tuning.common.redaction import redact, without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient


CONNECT_TIMEOUT_S = 5.0
MAX_MESSAGE = 300  # characters of MLflow's own message
SQLITE = "sqlite:///"  # before the path of a local database
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def connect() -> MlflowClient:
    """Return a client of the configured tracking server or local database.

    Raises:
        TrackingError: it cannot be reached.
    """
    import mlflow

    check_available()
    uri = mlflow.get_tracking_uri()
    try:
        with _creation_lock(uri):
            client = mlflow.MlflowClient()
            client.search_experiments(max_results=1)
    except Exception as error:  # each kind of store raises its own errors
        raise TrackingError(_unusable(uri, error)) from error
    return client


@contextmanager
def _creation_lock(uri: str) -> Iterator[None]:
    """Context manager: one process at a time creates the tables of a local database; two would disturb each other."""
    if not uri.startswith(SQLITE):
        yield
        return
    folder = state_dir() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.blake2b(absolute_uri(uri).encode(), digest_size=16).hexdigest()
    with FileLock(folder / f"database-{digest}.lock"):
        yield


def _unusable(uri: str, error: Exception) -> str:
    """Return the message for a store that MLflow cannot use, with its own reason and the next step."""
    rule = f"the tracking store {redact(without_credentials(uri))} must be usable, but "
    if is_file_store(uri):
        return (
            f"{rule}it is a folder of files, which MLflow keeps for old data only: migrate it with mlflow "
            "migrate-filestore, or start a new database beside it with MLFLOW_TRACKING_URI=sqlite:///mlflow.db, or set "
            "MLFLOW_ALLOW_FILE_STORE=true to use it as it is"
        )
    message = (str(error).strip().splitlines() or [""])[0][:MAX_MESSAGE].rstrip(". ")
    return (
        f"{rule}MLflow raised {type(error).__name__}: {redact(message)}; correct MLFLOW_TRACKING_URI or unset it for a "
        "local database"
    )


def is_file_store(uri: str) -> bool:
    """Return whether a tracking URI is that of a folder of files: a path, or file:."""
    return uri.startswith("file:") or ("://" not in uri and uri != "databricks")


def connect_to_existing() -> MlflowClient:
    """Return a client as ``connect`` does, for commands that need a run or a model: they create no database.

    Raises:
        TrackingError: the store cannot be reached, or the local database does not exist.
    """
    check_database_exists()
    return connect()


def check_database_exists() -> None:
    """Check that the configured database exists, if it is a local file.

    Raises:
        TrackingError: it does not.
    """
    uri = absolute_uri(tracking_uri())
    file = Path(uri.removeprefix(SQLITE).partition("?")[0])
    if uri.startswith(SQLITE) and not file.exists():
        raise TrackingError(
            f"the tracking store must hold the run or the model, but there is no {file}; run the command in the folder "
            "of the search, or set MLFLOW_TRACKING_URI, for example to sqlite:////home/me/project/mlflow.db"
        )


def store_text() -> str:
    """Return the configured tracking store for a message, without credentials."""
    return redact(without_credentials(absolute_uri(tracking_uri())))


def absolute_uri(tracking_uri: str) -> str:
    """Return a tracking URI that is valid in any working directory."""
    if is_file_store(tracking_uri) and not tracking_uri.startswith("file:/"):
        return Path(tracking_uri.removeprefix("file:")).expanduser().resolve().as_uri()
    path = tracking_uri.removeprefix(SQLITE)
    if path == tracking_uri or path.startswith("/"):
        return tracking_uri
    return f"{SQLITE}{Path(path).resolve()}"


def check_available() -> None:
    """Check that the configured server or database responds; a local database is not created.

    Raises:
        TrackingError: it does not.
    """
    uri = tracking_uri()
    if uri.startswith(("http://", "https://")):
        _check_server(uri)
    elif "@" in uri:
        _check_database(uri)


def tracking_uri() -> str:
    """Return the URI of the configured tracking store."""
    import mlflow

    return str(mlflow.get_tracking_uri())


def _check_server(uri: str) -> None:
    """Request /health with a short timeout: MLflow's own retries take minutes to give up."""
    import requests

    try:
        requests.get(uri.rstrip("/") + "/health", timeout=CONNECT_TIMEOUT_S).raise_for_status()
    except requests.RequestException as error:
        raise TrackingError(
            f"the MLflow server must be available, but {redact(uri)} is not "
            f"({type(error).__name__}); start it, correct MLFLOW_TRACKING_URI, or unset it for a local database; "
            "a search with tracking=offline delivers later"
        ) from None


def _check_database(uri: str) -> None:
    """Connect to the database's port: MLflow retries for minutes if nothing listens there."""
    parts = urllib.parse.urlsplit(uri)
    port = parts.port or DATABASE_PORTS.get(parts.scheme.partition("+")[0])
    if parts.hostname is None or port is None:
        return
    try:
        socket.create_connection((parts.hostname, port), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise TrackingError(
            f"the tracking database must be available, but {redact(uri)} is not "
            f"({error}); start it, correct MLFLOW_TRACKING_URI, or unset it for a local database"
        ) from None
