"""MLflow's own server, started as the docs do without Docker."""

from __future__ import annotations

import queue
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import load_text

from tests.docs_blocks import ROOT, blocks
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


def test_the_documented_webhook_reports_a_new_champion(server_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set three aliases: the receiver gets signed messages, and only that of the champion counts."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server_uri)
    messages: queue.Queue[tuple[Any, bytes]] = queue.Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.put((self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    register, receive = (
        block.text
        for block in blocks(ROOT / "docs" / "server.md")
        if block.detail.endswith("::test_the_documented_webhook_reports_a_new_champion")
    )
    namespace: dict[str, Any] = {}
    exec(receive, namespace)  # noqa: S102
    with HTTPServer((LOOPBACK, 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        exec(register.replace("https://hooks.example.org", f"http://{LOOPBACK}:{server.server_port}"), {})  # noqa: S102
        client = MlflowClient()
        run = client.create_run("0")
        client.create_registered_model("pets")
        for version, alias in (("1", "champion"), ("2", "challenger"), ("2", "champion")):
            if version not in {known.version for known in client.search_model_versions("name = 'pets'")}:
                client.create_model_version("pets", f"{run.info.artifact_uri}/{version}", run.info.run_id)
            client.set_registered_model_alias("pets", alias, version)
        received = [messages.get(timeout=60) for _ in range(3)]
        server.shutdown()
    secret = "a-long-random-secret"  # noqa: S105  # of the docs
    changes = [namespace["new_champion"](*message, secret) for message in received]
    assert sorted(filter(None, changes)) == [("pets", "1"), ("pets", "2")]
    assert [namespace["new_champion"](*message, "another secret") for message in received] == [None] * 3
