"""Helpers for tests with MLflow servers: registering a model, running a server, and sending requests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MODEL_NAME = "images"
MODEL_URI = f"models:/{MODEL_NAME}@champion"


def clean_environment(**extra: str) -> dict[str, str]:
    """Return a minimal set of environment variables, with the programs of this virtual environment first in PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    mlflow_settings = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    return {"PATH": path, "HOME": os.environ.get("HOME", "/"), **mlflow_settings, **extra}


def create_tracking_store(folder: Path) -> str:
    """Return the URI of a new SQLite tracking store whose experiment "search" has its artifacts in ``folder``."""
    import mlflow

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.MlflowClient(uri).create_experiment("search", artifact_location=(folder / "artifacts").as_uri())
    return uri


def register_champion(uri: str, package: Path) -> None:
    """Log a package to the tracking store at ``uri`` and register it as champion."""
    import mlflow

    from models.packaging.mlflow_model import log_package

    with pytest.MonkeyPatch.context() as patch:  # set_tracking_uri would override the variable in later tests
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name("search")
        experiment_id = experiment.experiment_id if experiment else client.create_experiment("search")
        model_uri = log_package(package, client.create_run(experiment_id).info.run_id)
        version = mlflow.register_model(model_uri, MODEL_NAME)
        client.set_registered_model_alias(MODEL_NAME, "champion", version.version)


@contextmanager
def run_server(
    command: list[str], health_url: str, folder: Path, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server in a new process session, wait until it is healthy, and terminate the session on exit."""
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=clean_environment(**environment), stdout=log, stderr=log, start_new_session=True
        )
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(health_url, timeout=5)
                    break
                except OSError:
                    assert process.poll() is None, (folder / "server.log").read_text()
                    time.sleep(0.2)
            else:
                pytest.fail("the server didn't start")
            yield process
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=30)


def invoke(server: str, payload: bytes, content_type: str = "application/json") -> tuple[int, str]:
    """Send a request to a prediction server and return the status and body of its response."""
    request = urllib.request.Request(f"{server}/invocations", data=payload, headers={"Content-Type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def invoke_json(server: str, payload: object) -> tuple[int, str]:
    """Send a JSON request."""
    return invoke(server, json.dumps(payload).encode())
