"""MLflow's own server, started as the docs do without Docker."""

from __future__ import annotations

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import load_text

from tests.services import LOOPBACK, ManagedProcess


def test_the_documented_server_without_docker_stores_runs_and_files(
    documented_server: ManagedProcess, server_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server_uri)
    client = MlflowClient()
    run = client.create_run(client.create_experiment("documented"))
    assert run.info.artifact_uri.startswith("mlflow-artifacts:"), "clients need no access to the store"
    client.log_text(run.info.run_id, "stored", "note.txt")
    assert load_text(f"runs:/{run.info.run_id}/note.txt") == "stored"
    stored = (documented_server.folder / "mlartifacts").rglob("note.txt")
    assert [file.read_text() for file in stored] == ["stored"]


def test_the_documented_server_listens_on_the_loopback_address_only(documented_server: ManagedProcess) -> None:
    assert documented_server.process is not None
    leader = psutil.Process(documented_server.process.pid)
    links = [link for process in (leader, *leader.children(True)) for link in process.net_connections("inet")]
    assert {link.laddr.ip for link in links if link.status == "LISTEN"} == {LOOPBACK}
