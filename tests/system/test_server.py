"""A search with the server of ``make server-local``, set in ``MLFLOW_TRACKING_URI``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from server.processes import free_port
from tests.system.conftest import ROOT, Workspace, runs_of, tune


@pytest.fixture
def server(
    workspace: Workspace, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[subprocess.Popen[str]]:
    """Start the server on SQLite; its first output line has the tracking URI."""
    folder = workspace.folder / "server"
    folder.mkdir()
    shutil.copy(empty_database, folder / "mlflow.db")
    command = [sys.executable, "-m", "server.local", "--database", "sqlite", "--folder", str(folder)]
    process = subprocess.Popen([*command, "--port", str(free_port())], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        first_line = process.stdout.readline()  # printed when all its processes are healthy
        assert first_line.startswith("MLflow on sqlite in ")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", first_line.rpartition("MLFLOW_TRACKING_URI=")[2].strip())
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_a_search_uses_the_server_of_the_environment(
    ray_cluster: None, workspace: Workspace, server: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(workspace, trials="2", max_epochs="1") == 0
    client = MlflowClient()
    parent, children = runs_of(client)
    assert parent.info.status == "FINISHED"
    assert parent.info.artifact_uri.startswith("mlflow-artifacts:")
    assert [run.info.status for run in children] == ["FINISHED", "FINISHED"]
    gate = client.get_model_version("photos", "1").tags["freezeline.gate"]  # the gate may reject it after one epoch
    assert int(client.get_model_version_by_alias("photos", gate).version) == 1
    assert f"{client.tracking_uri}/#/compare-runs?runs=" in capsys.readouterr().out
    assert not (workspace.folder / "mlruns").exists()
    children = psutil.Process(server.pid).children(recursive=True)
    links = [link for process in children for link in process.net_connections("inet") if link.status == "LISTEN"]
    assert {link.laddr.ip for link in links} == {"127.0.0.1"}, "no process may listen on another address"
    server.terminate()
    assert server.wait(60) == 0
    assert have_ended(children), "the server must leave no process behind"


def have_ended(processes: list[psutil.Process], within_s: float = 20) -> bool:
    _, alive = psutil.wait_procs(processes, within_s)
    return all(process.status() == psutil.STATUS_ZOMBIE for process in alive)
