"""What the tests of serving share: a model in a registry, a server of MLflow's own, and questions to it."""

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

MODEL = "models:/pictures@champion"


def clean_environment(**more: str) -> dict[str, str]:
    """Return the variables that a program needs, with this environment's programs found first."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    return {"PATH": path, "HOME": os.environ.get("HOME", "/"), **quiet, **more}


def local_store(folder: Path) -> str:
    """Return the URI of a new SQLite store whose experiment ``run_search`` keeps its artifacts in ``folder``."""
    import mlflow

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.MlflowClient(uri).create_experiment("search", artifact_location=(folder / "artifacts").as_uri())
    return uri


def register(uri: str, package: Path) -> None:
    """Log a package into the store at ``uri`` and register it as champion."""
    import mlflow

    from models.packaging.mlflow_model import log_package

    with pytest.MonkeyPatch.context() as patch:  # set_tracking_uri would outlive this and hide the environment
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        client = mlflow.MlflowClient()
        known = client.get_experiment_by_name("search")
        experiment = known.experiment_id if known else client.create_experiment("search")
        model_uri = log_package(package, client.create_run(experiment).info.run_id)
        version = mlflow.register_model(model_uri, "pictures")
        client.set_registered_model_alias("pictures", "champion", version.version)


@contextmanager
def running(command: list[str], health: str, folder: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server in a session of its own and wait for its health; end all of the session afterwards."""
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=clean_environment(**environment), stdout=log, stderr=log, start_new_session=True
        )
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(health, timeout=5)
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


def ask(server: str, payload: bytes, kind: str = "application/json") -> tuple[int, str]:
    """Return a prediction server's status and body."""
    request = urllib.request.Request(f"{server}/invocations", data=payload, headers={"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def ask_json(server: str, payload: object) -> tuple[int, str]:
    """Ask with a JSON document."""
    return ask(server, json.dumps(payload).encode())
