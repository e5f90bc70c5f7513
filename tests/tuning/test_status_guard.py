"""The last word on the run that mlflow run opened: KILLED, though mlflow run sets it to FAILED."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from tests.tuning.conftest import Clock
from tuning.tracking.parent_run import ParentRun
from tuning.tracking.status_guard import restore_status

if TYPE_CHECKING:
    from mlflow import MlflowClient

Words = list[tuple[str, str]]


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> Words:
    """Return the last words that were ordered; no process is started."""
    ordered: Words = []
    monkeypatch.setattr("tuning.tracking.status_guard.spawn_status_guard", lambda *word: ordered.append(word))
    return ordered


def test_a_run_that_mlflow_opened_and_the_user_killed_gets_a_last_word(client: MlflowClient, words: Words) -> None:
    run_id = client.create_run("0").info.run_id
    parent = ParentRun.open(client, run_id, "pets")
    parent.end_killed()
    assert parent.close() == ""
    assert client.get_run(run_id).info.status == "KILLED"
    assert words == [(run_id, "KILLED")]


def test_a_run_of_our_own_needs_no_last_word(client: MlflowClient, words: Words) -> None:
    parent = ParentRun.open(client, None, "pets")
    parent.end_killed()
    assert parent.close() == ""
    assert client.get_run(parent.run_id).info.status == "KILLED"
    assert words == []


def ended_process() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait(30)
    return done.pid


@pytest.mark.parametrize("overwritten", [True, False])
def test_the_last_word_is_said_after_the_run_was_overwritten_or_will_not_be(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, clock: Clock, overwritten: bool
) -> None:
    run_id = client.create_run("0").info.run_id
    client.set_terminated(run_id, "KILLED")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.now_s += seconds
        if overwritten and len(slept) == 3:
            client.set_terminated(run_id, "FAILED")

    monkeypatch.setattr("tuning.tracking.status_guard.time", SimpleNamespace(monotonic=clock.monotonic, sleep=sleep))
    restore_status(run_id, "KILLED", ended_process())
    assert client.get_run(run_id).info.status == "KILLED"
    assert (len(slept) == 3) is overwritten
    assert sum(slept) < 6
