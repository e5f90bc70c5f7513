"""The team's server without Docker: ``python -m server.local`` (``make server-local``), ended by Ctrl-C.

PostgreSQL if it is installed, else SQLite; artifacts in a folder; all of it below one folder, all on 127.0.0.1.
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


def parts(folder: Path, port: int, database: str) -> list[ManagedProcess]:
    """Return the parts in the order in which they start.

    Raises:
        PartError: PostgreSQL can't be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: list[ManagedProcess] = []
    uri = f"sqlite:///{folder}/mlflow.db"
    if database == "postgres":
        password, at = _password(folder), free_port()
        found.append(postgres(folder, at, USER, DATABASE, password))
        uri = f"postgresql+psycopg2://{USER}:{password}@{LOOPBACK}:{at}/{DATABASE}"
    command = ["server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"]
    command += ["--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")]
    found.append(mlflow_server(folder, port, command, {"MLFLOW_BACKEND_STORE_URI": uri}))
    return found


def _password(folder: Path) -> str:
    """Return the database's password, made once; only its owner can read it."""
    path = folder / "password"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(24))
    return path.read_text()


def main(arguments: Sequence[str]) -> int:
    """Start all parts, say how to use them, and end them on Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m server.local", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(platformdirs.user_data_dir("freezeline-server")))
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--database", choices=("auto", "postgres", "sqlite"), default="auto")
    asked = parser.parse_args(arguments)
    database = asked.database
    if database == "auto":
        database = "postgres" if postgres_tool("initdb") else "sqlite"
    over = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    try:
        with ExitStack() as stack:
            for part in parts(asked.folder.resolve(), asked.port, database):
                stack.callback(part.stop)
                part.start()
            uri = f"http://{LOOPBACK}:{asked.port}"
            print(f"MLflow on {database} in {asked.folder}: export MLFLOW_TRACKING_URI={uri}", flush=True)
            print(f"{uri}/?workflowType=machine_learning   Ctrl-C ends it", flush=True)
            over.wait()
    except ProcessStartError as error:
        print(f"server: {error}.", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
