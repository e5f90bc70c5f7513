"""MLflow's own server, started as the docs do without Docker."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import load_text

from tests.docs_blocks import ROOT, blocks, shell_commands
from tests.services import LOOPBACK, free_port, mlflow_server, running


def documented_command(port: int) -> list[str]:
    """Return the arguments of the documented ``mlflow server``, with another port."""
    commands = [words for block in blocks(ROOT / "docs" / "server.md") for words in shell_commands(block.text)]
    (command,) = (words for words in commands if words[:2] == ["mlflow", "server"])
    return [str(port) if word == "5000" else word for word in command[1:]]


def test_the_documented_server_without_docker_stores_runs_and_files(
    empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    port = free_port()
    with running(mlflow_server(tmp_path, port, documented_command(port), {})) as server:
        assert server.process is not None
        leader = psutil.Process(server.process.pid)
        links = [link for process in (leader, *leader.children(True)) for link in process.net_connections("inet")]
        assert {link.laddr.ip for link in links if link.status == "LISTEN"} == {LOOPBACK}
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{LOOPBACK}:{port}")
        client = MlflowClient()
        run = client.create_run(client.create_experiment("documented"))
        assert run.info.artifact_uri.startswith("mlflow-artifacts:"), "clients need no access to the store"
        client.log_text(run.info.run_id, "stored", "note.txt")
        assert load_text(f"runs:/{run.info.run_id}/note.txt") == "stored"
    assert [file.read_text() for file in (tmp_path / "mlartifacts").rglob("note.txt")] == ["stored"]
