"""Status guard: a run that the user stopped stays KILLED, although ``mlflow run`` sets it to FAILED."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from tests.tuning.conftest import FakeClock
from tuning.tracking.parent_run import ParentRun
from tuning.tracking.status_guard import restore_status

if TYPE_CHECKING:
    from mlflow import MlflowClient

Spawned = list[tuple[str, str]]


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> Spawned:
    """Return the run ids and statuses of the requested status guards; no process is started."""
    spawned: Spawned = []
    monkeypatch.setattr("tuning.tracking.status_guard.spawn_status_guard", lambda *args: spawned.append(args))
    return spawned


def test_a_stopped_run_of_mlflow_run_gets_a_status_guard(client: MlflowClient, spawned: Spawned) -> None:
    run_id = client.create_run("0").info.run_id
    parent = ParentRun.open(client, run_id, "pets")
    parent.end_killed()
    assert parent.close() == ""
    assert client.get_run(run_id).info.status == "KILLED"
    assert spawned == [(run_id, "KILLED")]


def test_a_stopped_run_of_a_direct_command_needs_no_status_guard(client: MlflowClient, spawned: Spawned) -> None:
    parent = ParentRun.open(client, None, "pets")
    parent.end_killed()
    assert parent.close() == ""
    assert client.get_run(parent.run_id).info.status == "KILLED"
    assert spawned == []


def pid_of_ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(30)
    return process.pid


@pytest.mark.parametrize("is_overwritten", [True, False])
def test_the_status_is_restored_after_it_was_overwritten_or_after_a_timeout(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, clock: FakeClock, is_overwritten: bool
) -> None:
    run_id = client.create_run("0").info.run_id
    client.set_terminated(run_id, "KILLED")
    sleeps_s: list[float] = []

    def sleep(seconds: float) -> None:
        sleeps_s.append(seconds)
        clock.now_s += seconds
        if is_overwritten and len(sleeps_s) == 3:
            client.set_terminated(run_id, "FAILED")

    monkeypatch.setattr("tuning.tracking.status_guard.time", SimpleNamespace(monotonic=clock.monotonic, sleep=sleep))
    restore_status(run_id, "KILLED", pid_of_ended_process())
    assert client.get_run(run_id).info.status == "KILLED"
    assert (len(sleeps_s) == 3) is is_overwritten
    assert sum(sleeps_s) < 6
