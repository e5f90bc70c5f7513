"""The team server of mlflow-compose.yml without Docker: all commands and variables are read from that file."""

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
from typing import Any, NamedTuple

import yaml
from sqlalchemy import create_engine, text

from tests.services import LOOPBACK, ManagedProcess, free_port, mlflow_server, postgres, s3_endpoint

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "mlflow-compose.yml"
SECRETS = {
    "POSTGRES_PASSWORD": "planted-postgres-password",
    "S3_ACCESS_KEY": "planted-access-key",
    "S3_SECRET_KEY": "planted-secret-key",
    "SERVER_SECRET_KEY": "planted-server-key",
}
S3_SERVER = """
import os, sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
application = DomainDispatcherApplication(create_backend_app)
def respond(environ, start_response):
    if os.path.exists(sys.argv[2]):
        start_response("500 Internal Server Error", [])
        return [b""]
    return application(environ, start_response)
run_simple("127.0.0.1", int(sys.argv[1]), respond, threaded=True)
"""
VARIABLE = re.compile(r"\$\{(\w+)(?:(:\?|:-|:\+)([^}]*))?\}")


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Return the text with variables filled in as Docker Compose does; a missing required variable raises KeyError."""

    def value(match: re.Match[str]) -> str:
        name, operator, default = match.groups()
        text = variables.get(name, "")
        if operator == ":+":
            return default if text else ""
        if text or operator is None:
            return text
        if operator == ":?":
            raise KeyError(name)
        return str(default)

    return VARIABLE.sub(value, text)


def services(**variables: str) -> dict[str, dict[str, Any]]:
    """Return the services of the Compose file, with its variables substituted."""
    loaded: dict[str, dict[str, Any]] = yaml.safe_load(interpolate(COMPOSE.read_text(), {**SECRETS, **variables}))
    return loaded["services"]


class Point(NamedTuple):
    """A value of a metric."""

    name: str
    step: int
    value: float
    time_ms: int


@dataclass
class TeamServer:
    """PostgreSQL, S3 and MLflow on free ports of 127.0.0.1, which replace the host names of the file."""

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    replaces: TeamServer | None = None  # start MLflow on the port, database and bucket of this server

    def __post_init__(self) -> None:
        self.services = services(**self.variables)
        self.bucket_failure = self.folder / "bucket-fails"  # while this file exists, S3 responds with status 500
        if self.replaces:
            self._ports = self.replaces._ports
            self.postgres, self.bucket = self.replaces.postgres, self.replaces.bucket
        else:
            self._ports = {name: free_port() for name in ("postgres:5432", "store:9000", "0.0.0.0 --port 5000")}
            variables = self.services["postgres"]["environment"]
            credentials = (variables["POSTGRES_USER"], variables["POSTGRES_DB"], variables["POSTGRES_PASSWORD"])
            self.postgres = postgres(self.folder, self._ports["postgres:5432"], *credentials)
            port = self._ports["store:9000"]
            command = [sys.executable, "-c", S3_SERVER, str(port), str(self.bucket_failure)]
            self.bucket = replace(s3_endpoint(self.folder, port), command=command)
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
    def processes(self) -> tuple[ManagedProcess, ...]:
        return self.postgres, self.bucket, self.mlflow

    def native(self, text: str) -> str:
        """Return a text of the file with host names of the Compose network replaced by local addresses."""
        for name, port in self._ports.items():
            host = f"{LOOPBACK} --port {port}" if "--port" in name else f"{LOOPBACK}:{port}"
            text = text.replace(name, host)
        return text.replace("/server/", f"{self.folder}/config/")

    def environment(self, service: str) -> dict[str, str]:
        return {name: self.native(str(text)) for name, text in self.services[service].get("environment", {}).items()}

    def run(self, service: str, *command: str) -> str:
        """Run a one-shot service; return its output."""
        arguments = [*self.services[service]["entrypoint"], *(command or self.services[service]["command"])]
        assert arguments[0] == "python"
        arguments = [sys.executable, *(self.native(argument) for argument in arguments[1:])]
        environment = {**os.environ, **self.environment(service)}
        done = subprocess.run(arguments, env=environment, check=True, capture_output=True, text=True, timeout=120)
        return done.stdout

    def start(self) -> None:
        config = self.folder / "config"
        config.mkdir(exist_ok=True)
        for file in (ROOT / "server").iterdir():
            if file.is_file():  # the volume ./server:/server, and /auth in the test's own folder
                (config / file.name).write_text(file.read_text().replace("////auth/", f"///{self.folder}/"))
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(ManagedProcess.start, (self.postgres, self.bucket)))
            list(pool.map(self.run, ("bucket", "migrate")))
        self.mlflow.start()

    def stored_points(self) -> dict[str, list[Point]]:
        """Return all metric points in the database, by run; a request for each metric would take much longer."""
        query = text('SELECT run_uuid, key, step, value, "timestamp" FROM metrics')
        points: dict[str, list[Point]] = {}
        with create_engine(self.environment("mlflow")["MLFLOW_BACKEND_STORE_URI"]).connect() as connection:
            for run_id, *point in connection.execute(query):
                points.setdefault(run_id, []).append(Point(*point))
        return points

    def empty_bucket(self) -> None:
        """Delete all objects of the bucket."""
        reset = f"http://{LOOPBACK}:{self._ports['store:9000']}/moto-api/reset"
        urllib.request.urlopen(urllib.request.Request(reset, method="POST")).close()

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.stop()


def team_folder() -> Path:
    """Return a new folder that PostgreSQL's user can access; it cannot access pytest's temporary folders."""
    folder = Path(tempfile.mkdtemp(prefix="freezeline-team-"))
    folder.chmod(0o711)
    return folder
