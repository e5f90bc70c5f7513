"""A search through the team's server (PostgreSQL, S3, MLflow), and what becomes of it when each of them fails.

In every case all points that a trial measured are in the store, once: counted and compared by run, name and step.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
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

from server.processes import postgres_tool
from tests.system.conftest import World, make_world, runs_of, tune
from tests.system.team_server import ROOT, Team, team_folder
from tuning.__main__ import main
from tuning.common.search_paths import SearchPaths
from tuning.tracking.async_writer import AsyncWriter
from tuning.tracking.operations import PARENT_UID, EndRun, LogEpoch, LogText, StartRun

pytestmark = [
    pytest.mark.skipif(postgres_tool("initdb") is None, reason="PostgreSQL is not installed"),
    pytest.mark.timeout(900),  # the first test starts everything
]

NAMES = ("val_loss", "val_accuracy", "train_loss")
ADMIN = "planted-admin-password"
OUTAGE_S = 0.0  # of the server, beside the time that it takes to start


@pytest.fixture(scope="session")
def started() -> Iterator[Team]:
    """The parts of mlflow-compose.yml, started once."""
    folder = team_folder()
    made = Team(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)


@pytest.fixture
def team(started: Team) -> Team:
    """The parts, whatever the test before has done to them."""
    for part in started.parts:
        if not part.is_healthy():
            part.start()
    return started


@pytest.fixture
def client(team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A client with no AWS variable and little patience."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", team.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.chdir(tmp_path)
    return MlflowClient(team.uri)


class Trials:
    """Six trials that report as fast as they can, through one writer; knows every point that was sent."""

    def __init__(self, client: MlflowClient, spool: Path, name: str) -> None:
        self.client = client
        self.experiment = client.create_experiment(name)
        self.parent = client.create_run(self.experiment, run_name="search").info.run_id
        self.points: dict[str, set[tuple[str, int, float, int]]] = {}
        self.texts: set[str] = set()
        self.writer = AsyncWriter(client, self.experiment, {"mlflow.parentRunId": self.parent}, spool)

    def report(self, steps: range, trials: int = 6) -> None:
        for number in range(trials):
            if f"uid{number}" not in self.points:
                self.writer.send(StartRun(f"uid{number}", f"trial-{number:03}", {"lr": 0.1}, {}, time_ms=1))
        for step in steps:
            for number in range(trials):
                metrics = {name: step + at / 10 + number / 100 for at, name in enumerate(NAMES)}
                self.writer.send(LogEpoch(f"uid{number}", step, metrics, time_ms=1000 + step))
                kept = self.points.setdefault(f"uid{number}", set())
                kept |= {(name, step, value, 1000 + step) for name, value in metrics.items()}
        self.texts.add(f"report-{steps.start}.txt")
        self.writer.send(LogText(PARENT_UID, f"report-{steps.start}.txt", "so far"))

    def end(self) -> None:
        for uid in self.points:
            self.writer.send(EndRun(uid, "FINISHED", {"reason": "ran to its end"}))
        self.writer.send(EndRun(PARENT_UID, "FINISHED", {}))

    def check(self) -> int:
        """Compare all that was sent with all that is stored; return the number of points."""
        runs = [run for run in self.client.search_runs([self.experiment]) if "freezeline.trial_uid" in run.data.tags]
        assert sorted(run.data.tags["freezeline.trial_uid"] for run in runs) == sorted(self.points)
        for run in runs:
            stored = [
                (point.key, point.step, point.value, point.timestamp)
                for name in run.data.metrics
                for point in self.client.get_metric_history(run.info.run_id, name)
            ]
            assert len(stored) == len(set(stored))
            assert set(stored) == self.points[run.data.tags["freezeline.trial_uid"]]
            assert run.info.status == "FINISHED"
        assert {file.path for file in self.client.list_artifacts(self.parent)} == self.texts
        assert self.client.get_run(self.parent).info.status == "FINISHED"
        return sum(map(len, self.points.values()))


@pytest.fixture
def trials(client: MlflowClient, tmp_path: Path, request: pytest.FixtureRequest) -> Trials:
    return Trials(client, tmp_path / "spool.jsonl", request.node.name)


def sent_points(spool: Path) -> dict[str, set[tuple[str, int, float, int]]]:
    """Return every point that a search wrote down, by the trial that it is of."""
    found: dict[str, set[tuple[str, int, float, int]]] = {}
    for line in spool.read_text().splitlines():
        fields = json.loads(line.partition(" ")[2])
        if fields.get("kind") == "LogEpoch":
            points = found.setdefault(fields["trial_uid"], set())
            points |= {(name, fields["step"], value, fields["time_ms"]) for name, value in fields["metrics"].items()}
    return found


def check_search(client: MlflowClient, name: str, trials: int) -> None:
    """Compare all that a search measured with all that is stored; no run is doubled or left running."""
    parent, children = runs_of(client, name)
    assert parent.info.artifact_uri.startswith("mlflow-artifacts:")
    assert len(children) == trials
    assert {run.info.status for run in [parent, *children]} <= {"FINISHED", "KILLED"}
    (paths,) = SearchPaths.all()
    sent = sent_points(paths.outbox)
    for run in [parent, *children]:
        stored = [
            (point.key, point.step, point.value, point.timestamp)
            for metric in run.data.metrics
            for point in client.get_metric_history(run.info.run_id, metric)
        ]
        assert len(stored) == len(set(stored))
        assert set(stored) == sent[run.data.tags.get("freezeline.trial_uid", PARENT_UID)]
    assert client.get_model_version_by_alias(name, "champion").run_id == parent.info.run_id
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"audit.json", "candidate.json", "environment.json", "test_scores.json"} <= files


@pytest.fixture
def photos(client: MlflowClient, empty_database: Path, tmp_path: Path) -> World:
    """Pictures to search on, in a world of which only these are used."""
    return make_world(tmp_path, empty_database)


def test_a_search_of_six_trials_from_a_client_without_aws_variables_loses_no_point_to_restarts(
    ray_cluster: None,
    client: MlflowClient,
    team: Team,
    photos: World,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The database is killed and comes back while trials report, then the server."""
    monkeypatch.setattr(
        "tuning.tracking.async_writer.MAX_RETRIES", 1000
    )  # six small trials may end before the server is back
    monkeypatch.setattr("tuning.tracking.async_writer.STALL_TIMEOUT_S", 150)
    with ThreadPoolExecutor(1) as pool:
        restarts = pool.submit(restart, client, team)
        assert tune(photos, trials="6", name="team") == 0
        restarts.result()
    check_search(client, "team", 6)
    printed = capsys.readouterr().out
    assert "View run" not in printed, "MLflow prints no line of its own for each run"
    assert "not delivered" not in printed
    assert main(["predict", "--model", "models:/team@champion", "--files", str(photos.photos / "red")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 20


def restart(client: MlflowClient, team: Team) -> None:
    """Once the search has told an epoch, kill the database and start it again, and then the server."""
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
    """Wait until the server has an epoch of a trial of the search that is about to start."""
    ends = time.monotonic() + 200
    while time.monotonic() < ends:
        with contextlib.suppress(MlflowException):  # on a busy machine the server's supervisor replaces slow workers
            found = client.get_experiment_by_name(name)
            runs = client.search_runs([found.experiment_id]) if found else []
            if any("val_loss" in run.data.metrics for run in runs):
                return
        time.sleep(0.5)
    raise AssertionError("no trial ended an epoch")


def test_a_store_of_files_that_answers_500_costs_neither_points_nor_files(
    trials: Trials, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials.report(range(1, 11))
    assert trials.writer.flush() == ()
    team.failing.touch()
    try:
        monkeypatch.setattr("tuning.tracking.async_writer.MAX_RETRIES", 1)
        began = time.monotonic()
        trials.report(range(11, 31))
        assert time.monotonic() - began < 1, "to send never waits for a server"
        assert trials.writer.flush() == ("report-11.txt of the search (MlflowException)",), "only the file waits"
    finally:
        team.failing.unlink()
    trials.report(range(31, 41))
    trials.end()
    assert trials.writer.close() == ()
    assert trials.check() == 6 * 40 * len(NAMES)


def test_nothing_listens_beyond_this_machine(team: Team) -> None:
    listening = set()
    for part in team.parts:
        assert part.process is not None
        leader = psutil.Process(part.process.pid)
        for process in [leader, *leader.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                listening |= {link.laddr.ip for link in process.net_connections("inet") if link.status == "LISTEN"}
    assert listening == {"127.0.0.1"}


def status(url: str, **headers: str) -> int:
    """Return what the server answers to a GET, or to a POST where an Origin is given."""
    body = b"{}" if "Origin" in headers else None
    asked = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_foreign_host_or_origin_is_answered_403(team: Team) -> None:
    search = f"{team.uri}/api/2.0/mlflow/experiments/search?max_results=1"
    assert status(search) == 200
    assert status(search, Host="mlflow:5000") == 200
    assert status(search, Host="evil.example") == 403
    made = f"{team.uri}/api/2.0/mlflow/runs/search"
    assert status(made, Origin="http://evil.example") == 403


# --- backup ---

DOCKER = """#!/usr/bin/env bash
# Stands in for docker: runs what the scripts ask of a service natively.
set -euo pipefail
shift 3  # compose -f FILE
case "$1" in
  exec) shift 3; exec "$@" ;;
  run) mount="$5"; shift 6; set -- "${@//\\/server/$SERVER}"; exec "$PYTHON" "${@//\\/backup/${mount%%:*}}" ;;
  stop|up) ;;
  *) echo "not expected: $*" >&2; exit 1 ;;
esac
"""


def test_a_backup_brings_back_the_runs_and_their_files(
    team: Team, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = client.create_experiment("kept")
    run_id = client.create_run(experiment).info.run_id
    client.log_metric(run_id, "loss", 0.5, timestamp=7, step=3)
    client.log_text(run_id, "what it was", "why.txt")
    stand_in = tmp_path / "bin" / "docker"
    stand_in.parent.mkdir()
    stand_in.write_text(DOCKER)
    stand_in.chmod(0o755)
    tools = str(Path(postgres_tool("pg_dump") or "").parent)
    environment = {
        **os.environ,
        **team.environment("bucket"),
        "PATH": f"{stand_in.parent}{os.pathsep}{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "SERVER": str(ROOT / "server"),
        "PGHOST": "127.0.0.1",
        "PGPORT": str(team.database_port),
        "PGPASSWORD": team.services["postgres"]["environment"]["POSTGRES_PASSWORD"],
    }

    def script(name: str) -> None:
        done = subprocess.run(
            [str(ROOT / "server" / name), str(tmp_path / "kept")],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    script("backup.sh")
    client.set_tag(run_id, "changed", "after the backup")
    client.delete_experiment(experiment)
    team.empty_bucket()
    script("restore.sh")
    run = client.get_run(run_id)
    assert "changed" not in run.data.tags
    assert client.get_experiment(experiment).lifecycle_stage == "active"
    (point,) = client.get_metric_history(run_id, "loss")
    assert (point.value, point.timestamp, point.step) == (0.5, 7, 3)
    assert load_text(f"runs:/{run_id}/why.txt") == "what it was"


# --- the server dies, and comes back with logins; last, for it is not started again after that ---


def test_a_server_that_dies_in_mid_search_costs_a_sentence_and_sync_delivers_the_rest_with_a_login(
    ray_cluster: None,
    client: MlflowClient,
    team: Team,
    photos: World,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server that comes back is the same with the one variable set that demands a login."""
    monkeypatch.setattr(
        "tuning.tracking.async_writer.FIRST_PAUSE_S", 0.05
    )  # it will not be there after the last try either
    with ThreadPoolExecutor(1) as pool:
        killed = pool.submit(lambda: (wait_for_epoch(client, "dying"), team.mlflow.kill()))
        assert tune(photos, trials="1", max_epochs="3", name="dying") == 0
        killed.result()
    printed = capsys.readouterr().out
    assert re.search(r"operations were not delivered to MLflow \(.* \(MlflowException\), ...\); run", printed)
    (paths,) = SearchPaths.all()
    assert f"python -m tuning sync --run {paths.root.name} to deliver them" in printed
    assert f"python -m tuning sync --run {paths.root.name} hands it over" in printed
    guarded = Team(team.folder, {"MLFLOW_ADMIN_PASSWORD": ADMIN}, shares=team)
    try:
        guarded.mlflow.start()
        assert_nobody_gets_in(guarded)
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", ADMIN)
        assert main(["sync"]) == 0
        assert "models:/dying@champion is now version 1" in capsys.readouterr().out
        check_search(client, "dying", 1)
        assert ADMIN not in guarded.mlflow.log.read_text()
    finally:
        guarded.mlflow.stop()


def assert_nobody_gets_in(guarded: Team) -> None:
    search = f"{guarded.uri}/api/2.0/mlflow/experiments/search?max_results=1"
    assert status(search) == 401
    assert status(search, Authorization="Basic YWRtaW46d3Jvbmc=") == 401
    assert status(f"{guarded.uri}/api/2.0/mlflow/runs/search", Origin=guarded.uri) == 401
    assert status(f"{guarded.uri}/api/2.0/mlflow-artifacts/artifacts") == 401
