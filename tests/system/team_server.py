"""The team's server run natively from mlflow-compose.yml itself: every command and variable is the file's own."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from server.processes import LOOPBACK, ManagedProcess, free_port, mlflow_server, postgres, s3_endpoint

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "mlflow-compose.yml"
SECRETS = {
    "POSTGRES_PASSWORD": "planted-postgres-password",
    "S3_ACCESS_KEY": "planted-access-key",
    "S3_SECRET_KEY": "planted-secret-key",
    "SERVER_SECRET_KEY": "planted-server-key",
}
STORE = """
import os, sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
stand_in = DomainDispatcherApplication(create_backend_app)
def answer(environ, start_response):
    if os.path.exists(sys.argv[2]):
        start_response("500 Internal Server Error", [])
        return [b""]
    return stand_in(environ, start_response)
run_simple("127.0.0.1", int(sys.argv[1]), answer, threaded=True)
"""
VARIABLE = re.compile(r"\$\{(\w+)(?:(:\?|:-|:\+)([^}]*))?\}")


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """Return the text as Docker Compose fills in its variables; a required one that is absent is a KeyError."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        given = variables.get(name, "")
        if kind == ":+":
            return rest if given else ""
        if given or kind is None:
            return given
        if kind == ":?":
            raise KeyError(name)
        return str(rest)

    return VARIABLE.sub(value, text)


def services(**variables: str) -> dict[str, dict[str, Any]]:
    """Return the services of the file, its variables filled in."""
    loaded: dict[str, dict[str, Any]] = yaml.safe_load(interpolated(COMPOSE.read_text(), {**SECRETS, **variables}))
    return loaded["services"]


@dataclass
class Team:
    """The parts, on free ports of 127.0.0.1; the MLflow server's and the store's names are mapped to them."""

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    shares: Team | None = None  # in whose place the server is started, on its port, its database and its store

    def __post_init__(self) -> None:
        self.services = services(**self.variables)
        self.failing = self.folder / "store-fails"  # while this file is there, the store answers 500
        if self.shares:
            self._ports = self.shares._ports
            self.postgres, self.store = self.shares.postgres, self.shares.store
        else:
            self._ports = {name: free_port() for name in ("postgres:5432", "store:9000", "0.0.0.0 --port 5000")}
            asked = self.services["postgres"]["environment"]
            names = (asked["POSTGRES_USER"], asked["POSTGRES_DB"], asked["POSTGRES_PASSWORD"])
            self.postgres = postgres(self.folder, self._ports["postgres:5432"], *names)
            port = self._ports["store:9000"]
            command = [sys.executable, "-c", STORE, str(port), str(self.failing)]
            self.store = replace(s3_endpoint(self.folder, port), command=command)
        program, *command = shlex.split(self.native(self.services["mlflow"]["command"]))
        assert program == "mlflow"
        self.mlflow = mlflow_server(self.folder, self.port, command, self.environment("mlflow"))

    @property
    def port(self) -> int:
        return self._ports["0.0.0.0 --port 5000"]

    @property
    def database_port(self) -> int:
        return self._ports["postgres:5432"]

    @property
    def uri(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def parts(self) -> tuple[ManagedProcess, ...]:
        return self.postgres, self.store, self.mlflow

    def native(self, text: str) -> str:
        """Return a text of the file with the names of the compose network turned into addresses of this machine."""
        for name, port in self._ports.items():
            host = f"{LOOPBACK} --port {port}" if "--port" in name else f"{LOOPBACK}:{port}"
            text = text.replace(name, host)
        return text.replace("/server/", f"{self.folder}/config/")

    def environment(self, service: str) -> dict[str, str]:
        return {name: self.native(str(text)) for name, text in self.services[service].get("environment", {}).items()}

    def run(self, service: str, *command: str) -> str:
        """Run a service that ends, to its end; return what it printed."""
        words = [*self.services[service]["entrypoint"], *(command or self.services[service]["command"])]
        assert words[0] == "python"
        words = [sys.executable, *(self.native(word) for word in words[1:])]
        environment = {**os.environ, **self.environment(service)}
        return subprocess.run(words, env=environment, check=True, capture_output=True, text=True, timeout=120).stdout

    def start(self) -> None:
        config = self.folder / "config"
        config.mkdir(exist_ok=True)
        for file in (ROOT / "server").iterdir():
            if file.is_file():  # the volume ./server:/server, and /auth in the test's own folder
                (config / file.name).write_text(file.read_text().replace("////auth/", f"///{self.folder}/"))
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(ManagedProcess.start, (self.postgres, self.store)))
            list(pool.map(self.run, ("bucket", "migrate")))
        self.mlflow.start()

    def empty_bucket(self) -> None:
        """Lose all that the store holds, as a new one has lost it."""
        reset = f"http://{LOOPBACK}:{self._ports['store:9000']}/moto-api/reset"
        urllib.request.urlopen(urllib.request.Request(reset, method="POST")).close()

    def stop(self) -> None:
        for part in reversed(self.parts):
            part.stop()


def team_folder() -> Path:
    """Return a new folder that the account of PostgreSQL can reach too, which pytest's own are not for."""
    folder = Path(tempfile.mkdtemp(prefix="freezeline-team-"))
    folder.chmod(0o711)
    return folder
