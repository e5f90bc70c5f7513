"""A search through an MLflow server, as ``MLFLOW_TRACKING_URI`` names it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.system.conftest import World, runs_of, tune


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def server(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An MLflow server on the world's database, with artifacts handed through; ended by its process id."""
    uri = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
    command += ["--port", uri.rpartition(":")[2], "--backend-store-uri", world.uri]
    command += ["--artifacts-destination", str(world.folder / "artifacts")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    log = (world.folder / "server.log").open("w")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until_healthy(uri, process)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        yield uri
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def wait_until_healthy(uri: str, process: subprocess.Popen[bytes], limit_s: float = 120) -> None:
    ends = time.monotonic() + limit_s
    while time.monotonic() < ends and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{uri}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError("the server did not start")


def test_a_search_uses_the_server_that_the_environment_names(
    ray_cluster: None, world: World, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(world, trials="2", max_epochs="1") == 0
    client = MlflowClient(server)
    parent, children = runs_of(client)
    assert parent.info.status == "FINISHED"
    assert parent.info.artifact_uri.startswith("mlflow-artifacts:")
    assert [run.info.status for run in children] == ["FINISHED", "FINISHED"]
    gate = client.get_model_version("photos", "1").tags["gate"]  # after one epoch it may not be above the floor
    assert int(client.get_model_version_by_alias("photos", gate).version) == 1
    assert f"{server}/#/compare-runs?runs=" in capsys.readouterr().out
    assert not (world.folder / "mlruns").exists()
