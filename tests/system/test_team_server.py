"""A search with the team server (PostgreSQL, S3, MLflow), and its behavior when each of them fails.

Each test compares all points that the trials reported with all stored points, by run, name and step.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import load_text
from mlflow.exceptions import MlflowException
from werkzeug.security import generate_password_hash

from tests.conftest import skip_without
from tests.services import postgres_tool
from tests.system.conftest import Workspace, make_workspace, runs_of, tune
from tests.system.team_server import ROOT, Point, TeamServer, team_folder
from tuning.__main__ import main
from tuning.common.search_paths import SearchPaths
from tuning.tracking.async_writer import AsyncWriter
from tuning.tracking.operations import PARENT_UID, EndRun, LogEpoch, LogText, StartRun

pytestmark = pytest.mark.timeout(900)  # the first test starts the server

NAMES = ("val_loss", "val_accuracy", "train_loss")
ADMIN = "planted-admin-password"
OUTAGE_S = 0.0  # outage of the server, in addition to its start time


@pytest.fixture(scope="session")
def started() -> Iterator[TeamServer]:
    """Start the team server once."""
    if postgres_tool("initdb") is None:
        skip_without("PostgreSQL")
    folder = team_folder()
    server = TeamServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture
def team(started: TeamServer) -> TeamServer:
    """Return the team server; restart the processes that an earlier test has stopped."""
    for process in started.processes:
        if not process.is_healthy():
            process.start()
    return started


@pytest.fixture
def client(team: TeamServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """Return a client without AWS variables and without HTTP retries."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", team.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.chdir(tmp_path)
    return MlflowClient(team.uri)


class Trials:
    """Six simulated trials that report through one writer as fast as they can, and all points that they sent."""

    def __init__(self, client: MlflowClient, team: TeamServer, outbox: Path, name: str) -> None:
        self.client, self.team = client, team
        self.experiment = client.create_experiment(name)
        self.parent = client.create_run(self.experiment, run_name="search").info.run_id
        self.points: dict[str, set[Point]] = {}
        self.texts: set[str] = set()
        self.writer = AsyncWriter(client, self.experiment, {"mlflow.parentRunId": self.parent}, outbox)

    def report(self, steps: range, trials: int = 6) -> None:
        for number in range(trials):
            if f"uid{number}" not in self.points:
                self.writer.send(StartRun(f"uid{number}", f"trial-{number:03}", {"lr": 0.1}, {}, time_ms=1))
        for step in steps:
            for number in range(trials):
                metrics = {name: step + at / 10 + number / 100 for at, name in enumerate(NAMES)}
                self.writer.send(LogEpoch(f"uid{number}", step, metrics, time_ms=1000 + step))
                points = self.points.setdefault(f"uid{number}", set())
                points |= {Point(name, step, value, 1000 + step) for name, value in metrics.items()}
        self.texts.add(f"report-{steps.start}.txt")
        self.writer.send(LogText(PARENT_UID, f"report-{steps.start}.txt", "so far"))

    def end(self) -> None:
        for uid in self.points:
            self.writer.send(EndRun(uid, "FINISHED", {"reason": "ran to its end"}))
        self.writer.send(EndRun(PARENT_UID, "FINISHED", {}))

    def check(self) -> int:
        """Compare all sent points with all stored points; return their number."""
        runs = [run for run in self.client.search_runs([self.experiment]) if "freezeline.trial_uid" in run.data.tags]
        assert sorted(run.data.tags["freezeline.trial_uid"] for run in runs) == sorted(self.points)
        points = self.team.stored_points()
        for run in runs:
            stored = points[run.info.run_id]
            assert len(stored) == len(set(stored))
            assert set(stored) == self.points[run.data.tags["freezeline.trial_uid"]]
            assert run.info.status == "FINISHED"
        assert {file.path for file in self.client.list_artifacts(self.parent)} == self.texts
        assert self.client.get_run(self.parent).info.status == "FINISHED"
        return sum(map(len, self.points.values()))


@pytest.fixture
def trials(client: MlflowClient, team: TeamServer, tmp_path: Path, request: pytest.FixtureRequest) -> Trials:
    return Trials(client, team, tmp_path / "outbox.jsonl", request.node.name)


def sent_points(outbox: Path) -> dict[str, set[Point]]:
    """Return every point in the outbox of a search, by trial."""
    points_by_trial: dict[str, set[Point]] = {}
    for line in outbox.read_text().splitlines():
        fields = json.loads(line.partition(" ")[2])
        if fields.get("kind") == "LogEpoch":
            points = points_by_trial.setdefault(fields["trial_uid"], set())
            points |= {
                Point(name, fields["step"], value, fields["time_ms"]) for name, value in fields["metrics"].items()
            }
    return points_by_trial


def check_search(client: MlflowClient, team: TeamServer, name: str, trials: int) -> None:
    """Compare all points in the outbox with all stored points; check that no run is duplicated or left running."""
    parent, children = runs_of(client, name)
    assert parent.info.artifact_uri.startswith("mlflow-artifacts:")
    assert len(children) == trials
    assert {run.info.status for run in [parent, *children]} <= {"FINISHED", "KILLED"}
    (paths,) = SearchPaths.all()
    sent, points = sent_points(paths.outbox), team.stored_points()
    for run in [parent, *children]:
        stored = points[run.info.run_id]
        assert len(stored) == len(set(stored))
        assert set(stored) == sent[run.data.tags.get("freezeline.trial_uid", PARENT_UID)]
    assert client.get_model_version_by_alias(name, "champion").run_id == parent.info.run_id
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"audit.json", "internal", "environment.json", "test_scores.json"} <= files


@pytest.fixture
def photos(client: MlflowClient, empty_database: Path, tmp_path: Path) -> Workspace:
    """Return a workspace whose images are used; its database is not."""
    return make_workspace(tmp_path, empty_database)


def test_a_search_without_aws_variables_loses_no_point_when_database_and_server_restart(
    ray_cluster: None,
    quick_searches: None,
    client: MlflowClient,
    team: TeamServer,
    photos: Workspace,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kill and restart the database while trials report, then the server."""
    # The six small trials may end before the server has restarted.
    monkeypatch.setattr("tuning.tracking.async_writer.MAX_RETRIES", 1000)
    monkeypatch.setattr("tuning.tracking.async_writer.STALL_TIMEOUT_S", 150)
    with ThreadPoolExecutor(1) as pool:
        restarts = pool.submit(restart, client, team)
        assert tune(photos, trials="6", name="team") == 0
        restarts.result()
    check_search(client, team, "team", 6)
    printed = capsys.readouterr().out
    assert f"{team.uri}/#/experiments/" in printed
    assert "View run" not in printed, "MLflow must not print a line for each run"
    assert "not delivered" not in printed
    assert main(["predict", "--model", "models:/team@champion", "--files", str(photos.photos / "red")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 20


def restart(client: MlflowClient, team: TeamServer) -> None:
    """After the first epoch, kill and restart the database, then the server."""
    wait_for_epoch(client, "team")
    team.postgres.kill()
    try:
        with pytest.raises(MlflowException, match=r"503|connection"):
            client.search_experiments()
    finally:
        team.postgres.start()
    team.mlflow.kill()
    time.sleep(OUTAGE_S)
    team.mlflow.start()


def wait_for_epoch(client: MlflowClient, name: str) -> None:
    """Wait until the server has stored an epoch of the search, which may not have started yet."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        with contextlib.suppress(MlflowException):  # on a busy machine the server's supervisor replaces slow workers
            experiment = client.get_experiment_by_name(name)
            runs = client.search_runs([experiment.experiment_id]) if experiment else []
            if any("val_loss" in run.data.metrics for run in runs):
                return
        time.sleep(0.5)
    raise AssertionError("no trial finished an epoch")


def test_an_artifact_store_that_responds_with_500_loses_neither_points_nor_files(
    trials: Trials, team: TeamServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials.report(range(1, 11))
    assert trials.writer.flush() == ()
    team.bucket_failure.touch()
    try:
        monkeypatch.setattr("tuning.tracking.async_writer.MAX_RETRIES", 1)
        start_s = time.monotonic()
        trials.report(range(11, 31))
        assert time.monotonic() - start_s < 1, "sending must not wait for the server"
        assert trials.writer.flush() == ("report-11.txt of the search (MlflowException)",), (
            "only the file must be pending"
        )
    finally:
        team.bucket_failure.unlink()
    trials.report(range(31, 41))
    trials.end()
    assert trials.writer.close() == ()
    assert trials.check() == 6 * 40 * len(NAMES)


def test_all_processes_listen_on_the_loopback_address_only(team: TeamServer) -> None:
    listening = set()
    for managed in team.processes:
        assert managed.process is not None
        leader = psutil.Process(managed.process.pid)
        for process in [leader, *leader.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                listening |= {link.laddr.ip for link in process.net_connections("inet") if link.status == "LISTEN"}
    assert listening == {"127.0.0.1"}


def status(url: str, **headers: str) -> int:
    """Return the status code of a GET request, or of a POST request if ``headers`` has an Origin."""
    body = b"{}" if "Origin" in headers else None
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_foreign_host_or_origin_gets_status_403(team: TeamServer) -> None:
    search = f"{team.uri}/api/2.0/mlflow/experiments/search?max_results=1"
    assert status(search) == 200
    assert status(search, Host="mlflow:5000") == 200
    assert status(search, Host="evil.example") == 403
    post_url = f"{team.uri}/api/2.0/mlflow/runs/search"
    assert status(post_url, Origin="http://evil.example") == 403


# --- backup ---

DOCKER = """#!/usr/bin/env bash
# Replaces docker: runs the scripts' commands natively instead of in a service's container.
set -euo pipefail
shift 3  # compose -f FILE
case "$1" in
  exec) shift 3; exec "$@" ;;
  run) mount="$5"; shift 6; set -- "${@//\\/server/$SERVER}"; exec "$PYTHON" "${@//\\/backup/${mount%%:*}}" ;;
  stop|up) ;;
  *) echo "unexpected: $*" >&2; exit 1 ;;
esac
"""


def test_a_backup_brings_back_the_runs_and_their_files(
    team: TeamServer, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = client.create_experiment("backed-up")
    run_id = client.create_run(experiment).info.run_id
    client.log_metric(run_id, "loss", 0.5, timestamp=7, step=3)
    client.log_text(run_id, "before the backup", "note.txt")
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    tools = str(Path(postgres_tool("pg_dump") or "").parent)
    environment = {
        **os.environ,
        **team.environment("bucket"),
        "PATH": f"{docker.parent}{os.pathsep}{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "SERVER": str(ROOT / "server"),
        "PGHOST": "127.0.0.1",
        "PGPORT": str(team.database_port),
        "PGPASSWORD": team.services["postgres"]["environment"]["POSTGRES_PASSWORD"],
    }

    def run_script(name: str) -> None:
        done = subprocess.run(
            [str(ROOT / "server" / name), str(tmp_path / "backup")],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    run_script("backup.sh")
    client.set_tag(run_id, "changed", "after the backup")
    client.delete_experiment(experiment)
    team.empty_bucket()
    run_script("restore.sh")
    run = client.get_run(run_id)
    assert "changed" not in run.data.tags
    assert client.get_experiment(experiment).lifecycle_stage == "active"
    (point,) = client.get_metric_history(run_id, "loss")
    assert (point.value, point.timestamp, point.step) == (0.5, 7, 3)
    assert load_text(f"runs:/{run_id}/note.txt") == "before the backup"


# --- the server dies and returns with logins; the last test, because the first server is not restarted ---


def test_if_the_server_dies_during_a_search_sync_delivers_the_rest_to_a_server_with_logins(
    ray_cluster: None,
    quick_searches: None,
    client: MlflowClient,
    team: TeamServer,
    photos: Workspace,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second server has the same data and requires a login."""
    # The server stays away, so long pauses between retries would only cost time.
    monkeypatch.setattr("tuning.tracking.async_writer.FIRST_PAUSE_S", 0.05)
    with ThreadPoolExecutor(1) as pool:
        killed = pool.submit(lambda: (wait_for_epoch(client, "dying"), team.mlflow.kill()))
        assert tune(photos, trials="1", max_epochs="3", name="dying") == 0
        killed.result()
    printed = capsys.readouterr().out
    assert re.search(r"operations were not delivered to MLflow \(.* \(MlflowException\), ...\); run", printed)
    (paths,) = SearchPaths.all()
    assert f"freezeline sync {paths.root.name} to deliver them" in printed
    assert f"freezeline sync {paths.root.name} delivers it" in printed
    secured = TeamServer(team.folder, {"MLFLOW_ADMIN_PASSWORD": ADMIN}, replaces=team)
    try:
        secured.mlflow.start()
        make_logins_quick(secured)
        assert_login_required(secured)
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", ADMIN)
        assert main(["sync"]) == 0
        assert "models:/dying@champion is now version 1" in capsys.readouterr().out
        check_search(client, team, "dying", 1)
        assert ADMIN not in secured.mlflow.log.read_text()
    finally:
        secured.mlflow.stop()


def make_logins_quick(secured: TeamServer) -> None:
    """Replace the stored hash of the password: the server computes it several times for each of a hundred requests."""
    with contextlib.closing(sqlite3.connect(secured.folder / "basic_auth.db")) as users, users:
        users.execute("UPDATE users SET password_hash = ?", [generate_password_hash(ADMIN, "pbkdf2:sha256:1")])


def assert_login_required(secured: TeamServer) -> None:
    search = f"{secured.uri}/api/2.0/mlflow/experiments/search?max_results=1"
    assert status(search) == 401
    assert status(search, Authorization="Basic YWRtaW46d3Jvbmc=") == 401
    assert status(f"{secured.uri}/api/2.0/mlflow/runs/search", Origin=secured.uri) == 401
    assert status(f"{secured.uri}/api/2.0/mlflow-artifacts/artifacts") == 401
