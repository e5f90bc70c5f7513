"""Resuming and extending searches in the test process, and re-running their best trials."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.dataset.dataset import Dataset
from tests.system.conftest import Workspace, runs_of, tune
from tuning.__main__ import main
from tuning.common.search_paths import SearchPaths
from tuning.common.signals import SignalHandler


def test_a_finished_search_can_be_extended_in_its_own_parent_run(
    copied_search: Workspace,
    quick_searches: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workspace = copied_search
    parent, children = runs_of(workspace.client)
    assert main(["resume", "--run", parent.info.run_id, "--trials", "2"]) == 0
    assert "resuming: 3 trials done, 0 unfinished; 2 trials of up to 2 epochs" in capsys.readouterr().out
    extended_parent, extended_children = runs_of(workspace.client)
    assert extended_parent.info.run_id == parent.info.run_id
    assert extended_parent.info.status == "FINISHED"
    assert [run.info.run_id for run in extended_children][:3] == [run.info.run_id for run in children]
    assert len(extended_children) == 5
    assert extended_parent.data.metrics["trials"] == 5
    evaluations = number_of_test_evaluations(workspace)
    assert evaluations == len({parent.data.metrics["best_trial"], extended_parent.data.metrics["best_trial"]})
    assert main(["resume", "--run", parent.info.run_id]) == 0  # no trials remain
    assert len(runs_of(workspace.client)[1]) == 5
    assert len(workspace.client.search_model_versions("name='photos'")) <= 2  # one per winner
    assert number_of_test_evaluations(workspace) == evaluations
    capsys.readouterr()
    monkeypatch.setattr(SignalHandler, "stop_requested", True)
    assert main(["resume", "--run", parent.info.run_id]) == 130
    output = capsys.readouterr().out
    assert "the best model so far is registered as version" in output
    assert "freezeline promote" not in output
    assert runs_of(workspace.client)[0].info.status == "FINISHED"


def number_of_test_evaluations(workspace: Workspace) -> int:
    """Return how often models were evaluated on the test images of the workspace."""
    (file,) = (workspace.folder / "home" / "test_evaluations").glob("*.json")
    return int(json.loads(file.read_text()))


def test_the_best_trials_are_rerun_with_other_seeds_and_the_best_mean_wins(
    ray_cluster: None, quick_searches: None, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(workspace, trials="2", rerun_top_k="2", rerun_seeds="1") == 0
    output = capsys.readouterr().out
    parent, children = runs_of(workspace.client)
    reruns = [run for run in children if run.data.tags["freezeline.origin"] == "rerun"]
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


def test_if_no_network_keeps_the_limits_the_error_names_the_nearest(
    ray_cluster: None, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(workspace, trials="1", max_mb="0.001") == 1
    error = capsys.readouterr().err
    assert "max_mb=0.001" in error
    assert "test_efficientnet" in error
    assert runs_of(workspace.client)[0].info.status == "FAILED"


def test_resume_reports_why_a_search_cannot_be_resumed_before_any_trial_starts(
    copied_search: Workspace, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = copied_search
    parent, children = runs_of(workspace.client)
    for run_id, message in (
        ("nothing", "which does not exist"),
        (children[0].info.run_id, "which is another kind of run; use the parent of the trials' runs"),
    ):
        assert main(["resume", "--run", run_id]) == 2
        assert message in capsys.readouterr().err
    (paths,) = SearchPaths.all()
    dataset = Dataset.from_json(paths.dataset.read_text())
    changed = dataset.model_copy(update={"samples": dataset.samples[1:]})
    paths.dataset.write_text(changed.to_json())
    assert main(["resume", "--run", parent.info.run_id]) == 2
    assert "has changed since" in capsys.readouterr().err
    paths.recipe.write_text("{}broken")
    assert main(["resume", "--run", parent.info.run_id]) == 2
    assert f"{paths.root} cannot be read" in capsys.readouterr().err
    monkeypatch.setenv("FREEZELINE_HOME", str(tmp_path / "elsewhere"))
    assert main(["resume", "--run", parent.info.run_id]) == 2
    assert f"it was {parent.data.tags['freezeline.search_folder']}" in capsys.readouterr().err
    assert workspace.client.get_run(parent.info.run_id).info.status == "FINISHED"
