"""The parts of a tracking server as plain processes on 127.0.0.1: PostgreSQL, an S3 endpoint, MLflow."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LOOPBACK = "127.0.0.1"
START_LIMIT_S = 120.0
STOP_LIMIT_S = 30.0
POLL_S = 0.1
POSTGRES_ACCOUNT = "postgres"  # PostgreSQL refuses to run as root; then it runs as this one
MAX_CONNECTIONS = 50


class ProcessStartError(Exception):
    """A part that can't be started; the message says why and what to do."""


@dataclass
class ManagedProcess:
    """One process: started until it is healthy, stopped or killed by its own process id.

    Attributes:
        name: as it is called in messages; its output goes to ``folder/NAME.log``.
        command: what is run.
        is_healthy: asked until it says yes.
        environment: beside this process's own.
        account: whose process it is, for root only.
    """

    name: str
    command: Sequence[str]
    folder: Path
    is_healthy: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    account: str | None = None
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is healthy.

        Raises:
            PartError: it ended, or took too long.
        """
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
                cwd=self.folder,
                user=self.account,
                group=self.account,
                extra_groups=[] if self.account else None,
                start_new_session=True,
            )
        ends = time.monotonic() + START_LIMIT_S
        while not self.is_healthy():
            if self.process.poll() is not None or time.monotonic() > ends:
                self.stop()
                raise ProcessStartError(f"{self.name} must start, but it did not; see {self.log}")
            time.sleep(POLL_S)

    def stop(self) -> None:
        """End it in peace, and what it started with it."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._end_group()

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self.process is not None:
            self._end_group()
            self.process.kill()
            self.process.wait(STOP_LIMIT_S)

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / f"{self.name}.log"

    def _end_group(self) -> None:
        """End what it left behind: it leads a session of its own, so its group is nobody else's."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                return


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        return int(sock.getsockname()[1])


def http_healthcheck(url: str) -> Callable[[], bool]:
    """Return the question whether a GET of ``url`` gets any answer below 500."""

    def ask() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310  # ours, on 127.0.0.1
                return True
        except urllib.error.HTTPError as error:
            return error.code < 500
        except (urllib.error.URLError, OSError):
            return False

    return ask


def postgres_tool(name: str) -> str | None:
    """Return where a program of PostgreSQL is: on PATH, or where Debian puts it, the newest version first."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: folder.parent.name, reverse=True)
    for folder in folders:
        if (folder / name).exists():
            return str(folder / name)
    return shutil.which(name)


def postgres(folder: Path, port: int, user: str, database: str, password: str) -> ManagedProcess:
    """Return a PostgreSQL whose data is in ``folder/postgres``; the cluster is made if need be.

    Raises:
        PartError: PostgreSQL is not installed, or can't use the folder.
    """
    initdb, program, ready = (postgres_tool(name) for name in ("initdb", "postgres", "pg_isready"))
    if not initdb or not program or not ready:
        raise ProcessStartError(
            "PostgreSQL must be installed, but is not; apt install postgresql, or give --database sqlite"
        )
    account = POSTGRES_ACCOUNT if os.geteuid() == 0 else None
    data = folder / "postgres"
    if not (data / "PG_VERSION").exists():
        _make_cluster(data, initdb, program, account, (user, database, password))
    command = [program, "-D", str(data), "-p", str(port), "-c", f"listen_addresses={LOOPBACK}"]
    command += ["-c", f"unix_socket_directories={data}", "-c", f"max_connections={MAX_CONNECTIONS}"]
    asking = [ready, "-q", "-h", LOOPBACK, "-p", str(port), "-U", user, "-d", database]

    def is_healthy() -> bool:
        return subprocess.run(asking, check=False).returncode == 0

    return ManagedProcess("postgres-server", command, folder, is_healthy, account=account)


def _make_cluster(data: Path, initdb: str, program: str, account: str | None, names: tuple[str, str, str]) -> None:
    user, database, password = names
    data.mkdir(parents=True, mode=0o700)
    secret = data.with_suffix(".password")
    secret.touch(mode=0o600)
    secret.write_text(password)
    if account:
        entry = pwd.getpwnam(account)
        for path in (data, secret):
            os.chown(path, entry.pw_uid, entry.pw_gid)
    making = [initdb, "-D", str(data), "-U", user, "--auth=scram-sha-256", f"--pwfile={secret}", "-E", "UTF8"]
    making += ["--locale=C"]
    single = [program, "--single", "-D", str(data), "postgres"]
    try:
        _run(making, account)
        _run(single, account, f'CREATE DATABASE "{database}"\n'.encode())
    except subprocess.CalledProcessError as error:
        shutil.rmtree(data)
        said = (error.stderr or error.stdout or b"").decode(errors="replace").strip().splitlines()
        why = said[-1] if said else str(error)
        why = said[-1] if said else str(error)
        raise ProcessStartError(
            f"{data} must be a place for PostgreSQL, but it says: {why}; give another --folder"
        ) from None
    finally:
        secret.unlink()


def _run(command: Sequence[str], account: str | None, told: bytes = b"") -> None:
    groups: list[str] | None = [] if account else None
    subprocess.run(
        command, input=told, capture_output=True, check=True, user=account, group=account, extra_groups=groups, cwd="/"
    )


def bucket_endpoint(folder: Path, port: int) -> ManagedProcess:
    """Return an S3 endpoint that keeps its objects in memory: to try things out."""
    command = [sys.executable, "-m", "moto.server", "-H", LOOPBACK, "-p", str(port)]
    return ManagedProcess("s3", command, folder, http_healthcheck(f"http://{LOOPBACK}:{port}/moto-api/"))


def mlflow_server(folder: Path, port: int, command: Sequence[str], environment: Mapping[str, str]) -> ManagedProcess:
    """Return the MLflow server that ``command`` (``server --host ...``) starts; it runs our Python's MLflow."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    whole = [sys.executable, "-m", "mlflow", *command]
    settled = {"PATH": path, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return ManagedProcess(
        "mlflow", whole, folder, http_healthcheck(f"http://{LOOPBACK}:{port}/health"), {**settled, **environment}
    )
