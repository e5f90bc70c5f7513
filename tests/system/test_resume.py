"""Resuming a search that was killed or stopped: nothing is lost or doubled, in the study and in MLflow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from benchmarks.faults import ROOT, TIMEOUT_S, SearchProcess, damage, inject, wait_for_epochs
from data.dataset.dataset import Dataset
from tests.system.conftest import Workspace, runs_of, tune
from tests.system.output_filter import foreign_lines
from tuning.__main__ import main
from tuning.common.search_paths import SearchPaths

TRIALS = 6  # in benchmarks.faults


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SearchProcess:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    process = SearchProcess(tmp_path)
    process.make_photos(30)
    return process


@pytest.mark.timeout(600)
def test_a_search_survives_a_killed_worker_and_a_killed_driver(search: SearchProcess) -> None:
    process = search.tune()
    wait_for_epochs(search, 4, process)
    inject("worker", search, process)
    wait_for_epochs(search, 30, process)
    inject("driver", search, process)
    before = {trial.trial_uid: trial.history for trial in search.trials() if trial.status != "running"}
    assert search.resume() == 0, search.log.read_text()
    lost, twice, wrong_points, running, _ = damage(search, 0.0)
    assert (lost, twice, wrong_points, running) == (0, 0, 0, 0)
    after = {trial.trial_uid: trial for trial in search.trials()}
    assert len(after) == TRIALS
    assert {trial.status for trial in after.values()} == {"complete"}
    assert all(after[uid].history == history for uid, history in before.items())
    files = {file.name for file in (search.search_folder / "trials").iterdir()}
    assert len(files) == TRIALS  # the weights of each trial's best epoch, and no checkpoint
    evaluation_counts = (search.folder / "home" / "test_evaluations").glob("*.json")
    assert [json.loads(file.read_text()) for file in evaluation_counts] == [1]


def test_a_search_stopped_by_the_user_can_be_resumed(search: SearchProcess) -> None:
    process = search.tune()
    wait_for_epochs(search, 6, process)
    inject("SIGTERM", search, process)
    assert process.wait(TIMEOUT_S) == 130
    (parent,) = (run for run in _runs(search.client) if "freezeline.trial_uid" not in run.data.tags)
    assert parent.info.status == "KILLED"
    assert f"python -m tuning resume --run {parent.info.run_id}" in search.log.read_text()
    assert foreign_lines(search.log.read_text().splitlines()) == []
    events = resume_with_json_events(search)
    assert damage(search, 0.0)[:4] == (0, 0, 0, 0)
    plan = next(event for event in events if event["event"] == "plan")
    assert (plan["run_id"], plan["trials"]) == (parent.info.run_id, TRIALS)
    ended = {event["trial"] for event in events if event["event"] == "trial_ended"}
    assert ended
    assert {trial.number for trial in search.trials()} >= ended
    assert events[-1] == {"event": "ended", "at": events[-1]["at"], "exit_status": 0, "problems": []}
    assert search.client.get_run(parent.info.run_id).info.status == "FINISHED"


def resume_with_json_events(search: SearchProcess) -> list[dict[str, Any]]:
    """Resume the search; return its events, the only text on stdout. Libraries print nothing on stderr either."""
    arguments = ("resume", "--run", search.search_folder.name, "--events", "json")
    done = subprocess.run(
        [sys.executable, "-m", "tuning", *arguments],
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


def _runs(client: MlflowClient) -> list[Run]:
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


def test_a_finished_search_can_be_extended_in_its_own_parent_run(
    ray_cluster: None, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(workspace, trials="2") == 0
    parent, children = runs_of(workspace.client)
    assert main(["resume", "--run", parent.info.run_id, "--trials", "2"]) == 0
    assert "resuming: 2 trials finished, 0 unfinished; 2 trials of up to 2 epochs" in capsys.readouterr().out
    extended_parent, extended_children = runs_of(workspace.client)
    assert extended_parent.info.run_id == parent.info.run_id
    assert extended_parent.info.status == "FINISHED"
    assert [run.info.run_id for run in extended_children][:2] == [run.info.run_id for run in children]
    assert len(extended_children) == 4
    assert extended_parent.data.metrics["trials"] == 4
    assert main(["resume", "--run", parent.info.run_id]) == 0  # no trials remain
    assert len(runs_of(workspace.client)[1]) == 4
    assert len(workspace.client.search_model_versions("name='photos'")) <= 2  # one per winner


def test_the_best_trials_are_rerun_with_other_seeds_and_the_best_mean_wins(
    ray_cluster: None, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(workspace, trials="2", rerun_top_k="2", rerun_seeds="1") == 0
    output = capsys.readouterr().out
    parent, children = runs_of(workspace.client)
    reruns = [run for run in children if run.data.tags["origin"] == "rerun"]
    assert len(children) == 4
    assert {run.data.tags["freezeline.rerun_of"] for run in reruns} == {
        run.data.tags["freezeline.trial_uid"] for run in children[:2]
    }
    assert {run.data.params["seed"] for run in reruns} == {"1"}
    best = next(run for run in children if int(run.data.params["trial"]) == parent.data.metrics["best_trial"])
    best_uid = best.data.tags["freezeline.trial_uid"]
    rerun = next(run for run in reruns if run.data.tags["freezeline.rerun_of"] == best_uid)
    scores = [run.data.metrics["best_val_balanced_accuracy"] for run in (best, rerun)]
    assert parent.data.metrics["best_mean"] == pytest.approx(sum(scores) / 2)
    assert f"trial {best.data.params['trial']}: mean" in output
    files = {file.path for file in workspace.client.list_artifacts(parent.info.run_id)}
    assert {"report.html", "leaderboard.csv", "costs.json", "audit.json", "charts"} <= files


def test_if_no_network_keeps_the_limits_the_error_names_the_nearest(
    ray_cluster: None, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(workspace, trials="1", max_mb="0.001") == 1
    error = capsys.readouterr().err
    assert "max_mb=0.001" in error
    assert "test_efficientnet" in error
    assert runs_of(workspace.client)[0].info.status == "FAILED"


def test_resume_reports_why_a_search_cannot_be_resumed_before_any_trial_starts(
    ray_cluster: None,
    workspace: Workspace,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert tune(workspace, trials="1") == 0
    parent, children = runs_of(workspace.client)
    for run_id, message in (
        ("nothing", "which does not exist"),
        (children[0].info.run_id, "which is another kind of run; use the parent of the trials' runs"),
    ):
        assert main(["resume", "--run", run_id]) == 2
        assert message in capsys.readouterr().err
    folder = parent.data.tags["freezeline.search_folder"]
    paths = SearchPaths(Path(folder))
    dataset = Dataset.from_json(paths.dataset.read_text())
    changed = dataset.model_copy(update={"samples": dataset.samples[1:]})
    paths.dataset.write_text(changed.to_json())
    assert main(["resume", "--run", parent.info.run_id]) == 2
    assert "has changed since" in capsys.readouterr().err
    paths.recipe.write_text("{}broken")
    assert main(["resume", "--run", parent.info.run_id]) == 2
    assert f"{folder} cannot be read" in capsys.readouterr().err
    monkeypatch.setenv("FREEZELINE_HOME", str(tmp_path / "elsewhere"))
    assert main(["resume", "--run", parent.info.run_id]) == 2
    assert f"it was {folder}" in capsys.readouterr().err
    assert workspace.client.get_run(parent.info.run_id).info.status == "FINISHED"
