"""A search that is killed and goes on: nothing lost, nothing twice, in the ledger and in MLflow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from benchmarks.faults import LONGEST_S, ROOT, Searched, damage, strike, wait_for_epochs
from data.dataset.dataset import Dataset
from tests.system.conftest import World, runs_of, tune
from tests.system.output_filter import foreign
from tuning.__main__ import main
from tuning.common.search_paths import SearchPaths

TRIALS = 6  # of benchmarks.faults


@pytest.fixture
def searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Searched:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    made = Searched(tmp_path)
    made.make_photos(30)
    return made


@pytest.mark.timeout(600)
def test_a_search_whose_worker_and_then_whose_driver_is_killed_loses_nothing_and_runs_nothing_twice(
    searched: Searched,
) -> None:
    process = searched.tune()
    wait_for_epochs(searched, 4, process)
    strike("worker", searched, process)
    wait_for_epochs(searched, 30, process)
    strike("driver", searched, process)
    before = {result.trial_uid: result.history for result in searched.results() if result.status != "running"}
    assert searched.resume() == 0, searched.log.read_text()
    lost, twice, wrong_points, running, _ = damage(searched, 0.0)
    assert (lost, twice, wrong_points, running) == (0, 0, 0, 0)
    after = {result.trial_uid: result for result in searched.results()}
    assert len(after) == TRIALS
    assert {result.status for result in after.values()} == {"complete"}
    assert all(after[uid].history == history for uid, history in before.items())
    files = {file.name for file in (searched.search_folder / "trials").iterdir()}
    assert len(files) == TRIALS  # the best epoch's weights of each, and no checkpoint
    looks = [json.loads(file.read_text()) for file in (searched.folder / "home" / "test_evaluations").glob("*.json")]
    assert looks == [1]  # the test pictures were looked at once


def test_a_user_who_ends_a_search_can_go_on_with_it(searched: Searched) -> None:
    process = searched.tune()
    wait_for_epochs(searched, 6, process)
    strike("SIGTERM", searched, process)
    assert process.wait(LONGEST_S) == 130
    (parent,) = (run for run in _runs(searched.client) if "freezeline.trial_uid" not in run.data.tags)
    assert parent.info.status == "KILLED"
    assert f"python -m tuning resume --run {parent.info.run_id}" in searched.log.read_text()
    assert foreign(searched.log.read_text().splitlines()) == []
    told = resumed_as_json(searched)
    assert damage(searched, 0.0)[:4] == (0, 0, 0, 0)
    plan = next(event for event in told if event["event"] == "plan")
    assert (plan["run_id"], plan["trials"]) == (parent.info.run_id, TRIALS)
    ended = {event["trial"] for event in told if event["event"] == "trial_ended"}
    assert ended
    assert {result.number for result in searched.results()} >= ended
    assert told[-1] == {"event": "ended", "at": told[-1]["at"], "exit_status": 0, "problems": []}
    assert searched.client.get_run(parent.info.run_id).info.status == "FINISHED"


def resumed_as_json(searched: Searched) -> list[dict[str, Any]]:
    """Go on with the search; return its events. Standard output has nothing else, and no library says a word."""
    words = ("resume", "--run", searched.search_folder.name, "--events", "json")
    done = subprocess.run(
        [sys.executable, "-m", "tuning", *words],
        cwd=ROOT,
        env=searched.environment,
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert foreign(done.stderr.splitlines()) == []
    return [json.loads(line) for line in done.stdout.splitlines()]


def _runs(client: MlflowClient) -> list:
    return client.search_runs([one.experiment_id for one in client.search_experiments()])


def test_a_finished_search_is_made_longer_in_its_own_parent_run(
    ray_cluster: None, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(world, trials="2") == 0
    parent, children = runs_of(world.client)
    assert main(["resume", "--run", parent.info.run_id, "--trials", "2"]) == 0
    assert "resuming: 2 trials finished, 0 unfinished; 2 trials of up to 2 epochs" in capsys.readouterr().out
    again, longer = runs_of(world.client)
    assert again.info.run_id == parent.info.run_id
    assert again.info.status == "FINISHED"
    assert [run.info.run_id for run in longer][:2] == [run.info.run_id for run in children]
    assert len(longer) == 4
    assert again.data.metrics["trials"] == 4
    assert main(["resume", "--run", parent.info.run_id]) == 0  # there is nothing left to do
    assert len(runs_of(world.client)[1]) == 4
    assert len(world.client.search_model_versions("name='photos'")) <= 2  # one for each winner


def test_the_best_are_trained_again_with_other_seeds_before_one_wins_by_its_mean(
    ray_cluster: None, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(world, trials="2", rerun_top_k="2", rerun_seeds="1") == 0
    said = capsys.readouterr().out
    parent, children = runs_of(world.client)
    finals = [run for run in children if run.data.tags["origin"] == "rerun"]
    assert len(children) == 4
    assert {run.data.tags["freezeline.rerun_of"] for run in finals} == {
        run.data.tags["freezeline.trial_uid"] for run in children[:2]
    }
    assert {run.data.params["seed"] for run in finals} == {"1"}
    best = next(run for run in children if int(run.data.params["trial"]) == parent.data.metrics["best_trial"])
    again = next(
        run for run in finals if run.data.tags["freezeline.rerun_of"] == best.data.tags["freezeline.trial_uid"]
    )
    scores = [run.data.metrics["best_val_balanced_accuracy"] for run in (best, again)]
    assert parent.data.metrics["best_mean"] == pytest.approx(sum(scores) / 2)
    assert f"trial {best.data.params['trial']}: mean" in said
    files = {file.path for file in world.client.list_artifacts(parent.info.run_id)}
    assert {"report.html", "leaderboard.csv", "costs.json", "audit.json", "charts"} <= files


def test_no_network_that_keeps_the_limit_is_a_sentence_that_names_the_nearest(
    ray_cluster: None, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(world, trials="1", max_mb="0.001") == 1
    assert "max_mb=0.001, and no trial's network does: the nearest is test_efficientnet" in capsys.readouterr().err
    assert runs_of(world.client)[0].info.status == "FAILED"


def test_a_search_that_cannot_go_on_says_why_before_anything_starts(
    ray_cluster: None, world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tune(world, trials="1") == 0
    parent, children = runs_of(world.client)
    for run, rule in (
        ("nothing", "which does not exist"),
        (children[0].info.run_id, "which is none; give the run above"),
    ):
        assert main(["resume", "--run", run]) == 2
        assert rule in capsys.readouterr().err
    folder = parent.data.tags["freezeline.search_folder"]
    paths = SearchPaths(Path(folder))
    kept = paths.dataset.read_text()
    dataset = Dataset.from_json(kept)
    other = dataset.model_copy(update={"samples": dataset.samples[1:]})
    paths.dataset.write_text(other.to_json())
    assert main(["resume", "--run", parent.info.run_id]) == 2
    assert "has changed since" in capsys.readouterr().err
    paths.recipe.write_text("{}broken")
    assert main(["resume", "--run", parent.info.run_id]) == 2
    assert "holds none that can be read" in capsys.readouterr().err
    monkeypatch.setenv("FREEZELINE_HOME", str(tmp_path / "elsewhere"))
    assert main(["resume", "--run", parent.info.run_id]) == 2
    assert f"it was {folder}" in capsys.readouterr().err
    assert world.client.get_run(parent.info.run_id).info.status == "FINISHED"
