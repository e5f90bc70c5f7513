"""MLflow's own server, started as the docs do without Docker, for the tests of this folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from tests.docs_blocks import ROOT, blocks, shell_commands
from tests.services import LOOPBACK, ManagedProcess, free_port, mlflow_server, running


def documented_command(port: int) -> list[str]:
    """Return the arguments of the documented ``mlflow server``, with another port."""
    commands = [words for block in blocks(ROOT / "docs" / "server.md") for words in shell_commands(block.text)]
    (command,) = (words for words in commands if words[:2] == ["mlflow", "server"])
    return [str(port) if word == "5000" else word for word in command[1:]]


@pytest.fixture(scope="session")
def documented_server(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManagedProcess]:
    """Run the server in a new folder."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, folder / "mlflow.db")
    port = free_port()
    webhooks = {  # docs/server.md describes these variables
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    }
    with running(mlflow_server(folder, port, documented_command(port), webhooks)) as server:
        yield server


@pytest.fixture
def server_uri(documented_server: ManagedProcess) -> str:
    """Return the tracking URI of the server."""
    port = documented_server.command[documented_server.command.index("--port") + 1]
    return f"http://{LOOPBACK}:{port}"
