"""Connecting to the MLflow tracking server or database."""

from __future__ import annotations

import socket
import urllib.parse
from typing import TYPE_CHECKING

from data.errors import TrackingError
from tuning.common.redaction import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient


CONNECT_TIMEOUT_S = 5.0
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
        client = mlflow.MlflowClient()
        client.search_experiments(max_results=1)
    except Exception as error:  # each kind of store raises its own errors
        raise TrackingError(
            f"the tracking store {redact(uri)} must be usable, but it raised {type(error).__name__}; "
            "correct MLFLOW_TRACKING_URI or unset it for a local database"
        ) from error
    return client


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
