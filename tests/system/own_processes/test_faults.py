"""A search whose processes are killed: nothing is lost or doubled, in the study and in MLflow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from benchmarks.faults import ROOT, TIMEOUT_S, SearchProcess, damage, inject, wait_for_epochs
from tests.system import quick
from tests.system.output_filter import foreign_lines

TRIALS = 4


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SearchProcess:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    process = SearchProcess(tmp_path, quick.MODULE, TRIALS, max_epochs=5)
    process.make_photos(30)
    return process


@pytest.mark.timeout(900)
def test_a_search_survives_a_killed_worker_and_a_killed_driver(search: SearchProcess) -> None:
    process = search.tune()
    wait_for_epochs(search, 4, process)  # fewer than those of one trial
    inject("worker", search, process)
    wait_for_epochs(search, search.epochs() + 6, process)
    inject("driver", search, process)
    before = {trial.trial_uid: trial.history for trial in search.trials() if trial.status != "running"}
    check_events(search, resume_with_json_events(search))
    lost, twice, wrong_points, running, _ = damage(search, 0.0)
    assert (lost, twice, wrong_points, running) == (0, 0, 0, 0)
    after = {trial.trial_uid: trial for trial in search.trials()}
    assert len(after) == TRIALS
    assert {trial.status for trial in after.values()} == {"complete"}
    assert all(after[uid].history == history for uid, history in before.items())
    # Of each trial the weights of its best epoch and its predictions, and no checkpoint.
    suffixes = sorted(file.suffix for file in (search.search_folder / "trials").iterdir())
    assert suffixes == [".npz"] * TRIALS + [".safetensors"] * TRIALS


def parent_run(search: SearchProcess) -> Run:
    """Return the run of the search itself."""
    runs = search.client.search_runs([experiment.experiment_id for experiment in search.client.search_experiments()])
    (parent,) = (run for run in runs if "freezeline.trial_uid" not in run.data.tags)
    return parent


def resume_with_json_events(search: SearchProcess) -> list[dict[str, Any]]:
    """Resume the search; return its events, the only text on stdout. Libraries print nothing on stderr either."""
    arguments = ("resume", "--run", search.search_folder.name, "--events", "json")
    done = subprocess.run(
        [sys.executable, "-m", search.module, *arguments],
        cwd=ROOT,
        env=search.environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert foreign_lines(done.stderr.splitlines()) == []
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_events(search: SearchProcess, events: list[dict[str, Any]]) -> None:
    """Check the events of the command that finishes the search."""
    parent = parent_run(search)
    plan = next(event for event in events if event["event"] == "plan")
    assert (plan["run_id"], plan["trials"]) == (parent.info.run_id, TRIALS)
    ended = {event["trial"] for event in events if event["event"] == "trial_ended"}
    assert ended
    assert {trial.number for trial in search.trials()} >= ended
    assert events[-1] == {"event": "ended", "at": events[-1]["at"], "exit_status": 0, "problems": []}
    assert parent.info.status == "FINISHED"
