"""Tracking server without Docker: ``python -m server.local`` (``make server-local``); Ctrl-C stops it.

PostgreSQL if it is installed, otherwise SQLite; all data is in one folder; the server listens on 127.0.0.1 only.
"""

from __future__ import annotations

import argparse
import secrets
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import platformdirs

from server.processes import (
    LOOPBACK,
    ManagedProcess,
    ProcessStartError,
    free_port,
    mlflow_server,
    postgres,
    postgres_tool,
)

PORT = 5000
USER = DATABASE = "mlflow"


def build_processes(folder: Path, port: int, database: str) -> list[ManagedProcess]:
    """Return the processes in the order of their start.

    Raises:
        ProcessStartError: PostgreSQL cannot be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    processes: list[ManagedProcess] = []
    uri = f"sqlite:///{folder}/mlflow.db"
    if database == "postgres":
        password, database_port = _password(folder), free_port()
        processes.append(postgres(folder, database_port, USER, DATABASE, password))
        uri = f"postgresql+psycopg2://{USER}:{password}@{LOOPBACK}:{database_port}/{DATABASE}"
    command = ["server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"]
    command += ["--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")]
    processes.append(mlflow_server(folder, port, command, {"MLFLOW_BACKEND_STORE_URI": uri}))
    return processes


def _password(folder: Path) -> str:
    """Return the database password; create it once, readable by its owner only."""
    path = folder / "password"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(24))
    return path.read_text()


def main(arguments: Sequence[str]) -> int:
    """Start all processes, print the URI, and stop them on Ctrl-C or SIGTERM; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m server.local", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(platformdirs.user_data_dir("freezeline-server")))
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--database", choices=("auto", "postgres", "sqlite"), default="auto")
    options = parser.parse_args(arguments)
    database = options.database
    if database == "auto":
        database = "postgres" if postgres_tool("initdb") else "sqlite"
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with ExitStack() as stack:
            for process in build_processes(options.folder.resolve(), options.port, database):
                stack.callback(process.stop)
                process.start()
            uri = f"http://{LOOPBACK}:{options.port}"
            print(f"MLflow on {database} in {options.folder}: export MLFLOW_TRACKING_URI={uri}", flush=True)
            print(f"{uri}/?workflowType=machine_learning   Ctrl-C stops it", flush=True)
            stop.wait()
    except ProcessStartError as error:
        print(f"server: {error}.", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
