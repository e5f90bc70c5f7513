"""Services on 127.0.0.1 for tests and benchmarks: PostgreSQL, an S3 endpoint, an MLflow server."""

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

LOOPBACK = "127.0.0.1"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0
POLL_S = 0.1
POSTGRES_ACCOUNT = "postgres"  # used when we are root, because PostgreSQL refuses to run as root
MAX_CONNECTIONS = 50


class ProcessStartError(Exception):
    """A process that cannot be started; the message has the reason and the next step."""


@dataclass
class ManagedProcess:
    """A server process that is started, health-checked, stopped and killed by its process id.

    Attributes:
        name: name in messages; the output goes to ``folder/NAME.log``.
        command: command line.
        folder: working directory, and folder of the log.
        is_healthy: health check, repeated after the start until it returns True.
        environment: variables in addition to our own environment.
        account: user that runs the process; only if we are root.
        process: the running process; None before the start.
    """

    name: str
    command: Sequence[str]
    folder: Path
    is_healthy: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    account: str | None = None
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and wait until it is healthy.

        Raises:
            ProcessStartError: it exited, or was not healthy within ``START_TIMEOUT_S``.
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
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not self.is_healthy():
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                self.stop()
                raise ProcessStartError(
                    f"{self.name} must start within {START_TIMEOUT_S:g} s, but it did not; see {self.log}"
                )
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Terminate the process and its children gracefully."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._kill_group()

    def kill(self) -> None:
        """Kill the process and its children immediately, as a crash would."""
        if self.process is not None:
            self._kill_group()
            self.process.kill()
            self.process.wait(STOP_TIMEOUT_S)

    @property
    def log(self) -> Path:
        """File with the output of the process."""
        return self.folder / f"{self.name}.log"

    def _kill_group(self) -> None:
        """Kill the remaining children; the process leads its own session, so the group has no other members."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                return


@contextmanager
def running(process: ManagedProcess) -> Iterator[ManagedProcess]:
    """Context manager that starts the process, and stops it on exit."""
    process.start()
    try:
        yield process
    finally:
        process.stop()


def free_port() -> int:
    """Return a port that is currently free."""
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        return int(sock.getsockname()[1])


def http_healthcheck(url: str) -> Callable[[], bool]:
    """Return a health check: True if a GET of ``url`` returns a status below 500."""

    def is_healthy() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return True
        except urllib.error.HTTPError as error:
            return error.code < 500
        except (urllib.error.URLError, OSError):
            return False

    return is_healthy


def postgres_tool(name: str) -> str | None:
    """Return the path of a PostgreSQL program: the newest version in Debian's folder, otherwise from PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: folder.parent.name, reverse=True)
    for folder in folders:
        if (folder / name).exists():
            return str(folder / name)
    return shutil.which(name)


def postgres(folder: Path, port: int, user: str, database: str, password: str) -> ManagedProcess:
    """Return a PostgreSQL server with its data in ``folder/postgres``; create the cluster if it does not exist.

    Raises:
        ProcessStartError: PostgreSQL is not installed, or cannot use the folder.
    """
    initdb, program, ready = (postgres_tool(name) for name in ("initdb", "postgres", "pg_isready"))
    if not initdb or not program or not ready:
        raise ProcessStartError("PostgreSQL must be installed, but is not; run apt install postgresql")
    account = POSTGRES_ACCOUNT if os.geteuid() == 0 else None
    data = folder / "postgres"
    if not (data / "PG_VERSION").exists():
        _create_cluster(data, initdb, program, account, (user, database, password))
    command = [program, "-D", str(data), "-p", str(port), "-c", f"listen_addresses={LOOPBACK}"]
    command += ["-c", f"unix_socket_directories={data}", "-c", f"max_connections={MAX_CONNECTIONS}"]
    health_command = [ready, "-q", "-h", LOOPBACK, "-p", str(port), "-U", user, "-d", database]

    def is_healthy() -> bool:
        return subprocess.run(health_command, check=False).returncode == 0

    return ManagedProcess("postgres-server", command, folder, is_healthy, account=account)


def _create_cluster(
    data: Path, initdb: str, program: str, account: str | None, credentials: tuple[str, str, str]
) -> None:
    user, database, password = credentials
    data.mkdir(parents=True, mode=0o700)
    password_file = data.with_suffix(".password")
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    if account:
        entry = pwd.getpwnam(account)
        for path in (data, password_file):
            os.chown(path, entry.pw_uid, entry.pw_gid)
    init_command = [
        initdb,
        "-D",
        str(data),
        "-U",
        user,
        "--auth=scram-sha-256",
        f"--pwfile={password_file}",
        "-E",
        "UTF8",
    ]
    init_command += ["--locale=C"]
    create_command = [program, "--single", "-D", str(data), "postgres"]
    try:
        _run(init_command, account)
        _run(create_command, account, f'CREATE DATABASE "{database}"\n'.encode())
    except subprocess.CalledProcessError as error:
        shutil.rmtree(data)
        output = (error.stderr or error.stdout or b"").decode(errors="replace").strip().splitlines()
        reason = output[-1] if output else str(error)
        raise ProcessStartError(f"{data} must be usable by PostgreSQL, but it failed with: {reason}") from None
    finally:
        password_file.unlink()


def _run(command: Sequence[str], account: str | None, stdin: bytes = b"") -> None:
    groups: list[str] | None = [] if account else None
    subprocess.run(
        command, input=stdin, capture_output=True, check=True, user=account, group=account, extra_groups=groups, cwd="/"
    )


def s3_endpoint(folder: Path, port: int) -> ManagedProcess:
    """Return an S3 endpoint with its objects in memory."""
    command = [sys.executable, "-m", "moto.server", "-H", LOOPBACK, "-p", str(port)]
    return ManagedProcess("s3", command, folder, http_healthcheck(f"http://{LOOPBACK}:{port}/moto-api/"))


def mlflow_server(folder: Path, port: int, command: Sequence[str], environment: Mapping[str, str]) -> ManagedProcess:
    """Return the MLflow server for ``command`` (``server --host ...``); it runs the MLflow of this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    full_command = [sys.executable, "-m", "mlflow", *command]
    defaults = {"PATH": path, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return ManagedProcess(
        "mlflow",
        full_command,
        folder,
        http_healthcheck(f"http://{LOOPBACK}:{port}/health"),
        {**defaults, **environment},
    )
