"""A whole search with the real parts: Ray runs the trials, MLflow keeps them, ONNX Runtime serves the winner."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from mlflow import MlflowClient
from mlflow.artifacts import load_text
from mlflow.entities import Run

from data.preprocessing import normalize, read_image, to_pixels
from models.training.trial_io import load_classifier
from models.trial_config import TrialConfig
from tests.golden import recorded
from tests.golden.search import epochs_of
from tests.system.conftest import Searched, World, runs_of, tune
from tests.system.output_filter import foreign
from tuning.__main__ import main
from tuning.common.search_paths import SearchPaths

ALONE = """
import base64, json, pathlib, sys
import mlflow
for module in ("data", "models", "tuning"):
    try:
        __import__(module)
    except ImportError:
        continue
    raise SystemExit(f"{module} can be imported")
files = [pathlib.Path(name) for name in sys.argv[2:]]
model = mlflow.pyfunc.load_model(sys.argv[1])
asked = {
    "bytes": [file.read_bytes() for file in files],
    "base64": [base64.b64encode(file.read_bytes()).decode() for file in files],
    "paths": files,
    "one": files[:1],
    "two": files[:2],
}
print(json.dumps({how: model.predict(data).to_dict("records") for how, data in asked.items()}))
"""


def test_a_search_ends_with_a_champion_and_tells_what_to_type_next(searched: Searched) -> None:
    assert "photos: 60 images in 3 classes" in searched.output
    assert "Best trials by validation" in searched.output
    assert "95% CI" in searched.output
    assert "raw pixels" in searched.output
    assert "python -m tuning predict --model models:/photos@champion" in searched.output
    assert "/#/compare-runs?runs=" in searched.output
    assert int(searched.client.get_model_version_by_alias("photos", "champion").version) == 1


def test_while_it_runs_its_trials_are_shown_and_in_the_end_nothing_is_left_of_that(searched: Searched) -> None:
    for part in ("packaging trial", "trial  epoch   time   score  curve", "of 3 trials, 0 pruned, 0 failed", "▁"):
        assert part in searched.written
        assert part not in searched.output
    assert searched.written.rfind("\x1b[?25h") > searched.written.rfind("\x1b[?25l")


def test_no_library_says_a_word(searched: Searched) -> None:
    assert foreign(searched.output.splitlines()) == []


def test_every_trial_has_one_run_below_the_parent_and_none_stays_running(searched: Searched) -> None:
    parent, children = runs_of(searched.client)
    assert parent.info.status == "FINISHED"
    assert [run.data.params["trial"] for run in children] == ["0", "1", "2"]
    assert {run.info.status for run in children} <= {"FINISHED", "KILLED"}
    assert len({run.data.tags["freezeline.trial_uid"] for run in children}) == 3
    assert all(run.data.tags["reason"] for run in children)


def test_a_trials_run_holds_its_settings_and_every_epoch(searched: Searched) -> None:
    run = runs_of(searched.client)[1][0]
    config = TrialConfig.from_json(run.data.tags["freezeline.trial_config"])
    assert float(run.data.params["lr"]) == config.fit.lr
    assert run.data.params["optimizer"] == config.fit.optimizer == "adamw"
    assert {"freeze_fraction", "freeze_depth", "freeze_block", "log10_lr", "batch_size"} <= set(run.data.params)
    scores = ("val_loss", "val_balanced_accuracy", "val_accuracy", "val_macro_f1", "train_loss", "train_accuracy")
    for metric in (*scores, "lr", "epoch_s", "images_per_s", "peak_memory_mb"):
        assert [point.step for point in searched.client.get_metric_history(run.info.run_id, metric)] == [1, 2]
    assert int(run.data.params["trainable_parameters"]) > 0
    assert run.data.metrics["trained_s"] > 0
    assert run.data.tags["reason"] == "ran to its end"


def test_the_parent_holds_the_recipe_the_data_the_environment_and_the_result(searched: Searched) -> None:
    parent, children = runs_of(searched.client)
    assert parent.data.params["recipe.trials"] == "3"
    inputs = parent.inputs.dataset_inputs
    assert inputs[0].dataset.name == "photos"
    assert inputs[0].dataset.digest == parent.data.tags["freezeline.data_fingerprint"]
    files = {file.path for file in searched.client.list_artifacts(parent.info.run_id)}
    assert {"environment.json", "candidate.json", "test_scores.json"} <= files
    best = max(run.data.metrics["best_val_balanced_accuracy"] for run in children)
    assert parent.data.metrics["best_val_balanced_accuracy"] == best
    assert 0 <= parent.data.metrics["test_balanced_accuracy"] <= 1


def test_the_default_is_tried_so_that_no_search_ends_worse_on_validation(searched: Searched) -> None:
    parent, children = runs_of(searched.client)
    first = next(run for run in children if run.data.tags["origin"] == "default")
    assert (first.data.params["optimizer"], first.data.params["lr_scheduler"]) == ("adamw", "cosine")
    assert parent.data.metrics["best_val_balanced_accuracy"] >= first.data.metrics["best_val_balanced_accuracy"]


def test_the_champion_loads_alone_and_gives_the_probabilities_of_training(searched: Searched, tmp_path: Path) -> None:
    """From an empty folder, isolated, pickle forbidden, for batches of 1, 2 and 5."""
    files = sorted(searched.world.photos.rglob("*.png"))[::12]
    assert len(files) == 5
    environment = {
        **os.environ,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_TRACKING_URI": searched.world.uri,
    }
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, "models:/photos@champion", *map(str, files)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    expected = training_probabilities(searched, files)
    for how, rows in answers.items():
        got = np.array([[row[name] for name in ("blue", "green", "red")] for row in rows])
        assert got.shape == (len(rows), 3), how
        np.testing.assert_allclose(got, expected[: len(rows)], atol=1e-4)
    assert [len(answers[how]) for how in ("bytes", "base64", "paths", "two", "one")] == [5, 5, 5, 2, 1]


def training_probabilities(searched: Searched, files: list[Path]) -> npt.NDArray[np.float64]:
    """Return what the trained network says of the files, through the code that trains."""
    parent, children = runs_of(searched.client)
    best = next(run for run in children if int(run.data.params["trial"]) == parent.data.metrics["best_trial"])
    config = TrialConfig.from_json(best.data.tags["freezeline.trial_config"])
    paths = SearchPaths(Path(parent.data.tags["freezeline.search_folder"]))
    classifier = load_classifier(
        config, 3, paths.weights(best.data.tags["freezeline.trial_uid"], int(best.data.metrics["best_epoch"]))
    ).eval()
    pixels = np.stack([to_pixels(read_image(file), config.preprocessing) for file in files])
    with torch.no_grad():
        logits = classifier(torch.from_numpy(normalize(pixels, config.preprocessing)))
    return np.asarray((logits.double() / parent.data.metrics["temperature"]).softmax(dim=1))


def test_evaluate_gives_the_numbers_that_the_search_logged(
    searched: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched.world.enter(monkeypatch)
    output = tmp_path / "scores.json"
    data = str(searched.world.photos)
    assert main(["evaluate", "--model", "models:/photos@champion", "--data", data, "--json", str(output)]) == 0
    scores = json.loads(output.read_text())["scores"]
    parent = runs_of(searched.client)[0]
    assert scores["balanced_accuracy"] == parent.data.metrics["test_balanced_accuracy"]


def test_the_champion_was_calibrated_on_validation_and_its_version_says_what_it_is(searched: Searched) -> None:
    parent = runs_of(searched.client)[0]
    for split in ("val", "test"):
        for name in ("ece", "ece_uncalibrated"):
            assert 0 <= parent.data.metrics[f"{split}_{name}"] <= 1
    version = searched.client.get_model_version("photos", "1")
    assert version.tags["freezeline.git_commit"] == parent.data.tags["freezeline.git_commit"]
    assert version.tags["freezeline.data_fingerprint"] == parent.data.tags["freezeline.data_fingerprint"]
    assert parent.info.run_id in version.description
    assert "| red |" in version.description
    files = {file.path for file in searched.client.list_artifacts(parent.info.run_id, "candidates")}
    assert {Path(file).suffixes[-2:] == [".proof", ".json"] for file in files} == {True, False}


def test_a_second_search_in_the_run_that_mlflow_opened_is_decided_against_the_champion(
    searched: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(shutil.copytree(searched.world.folder, tmp_path / "copy"))
    world.enter(monkeypatch)
    opened = world.client.create_run(world.client.create_experiment("opened")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", opened)
    assert tune(world, max_concurrent="1", name="photos", quiet="on") == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 7  # the test result, the decision, and where the report is
    assert said.err == ""
    assert "MLFLOW_RUN_ID" not in os.environ  # or every Ray worker would log into the parent
    parent, children = runs_of(world.client, "opened")
    assert (parent.info.run_id, len(children)) == (opened, 3)
    # The same seed, one at a time: the same search, bit for bit.
    assert [_numbers(world.client, run) for run in children] == [
        _numbers(searched.client, run) for run in runs_of(searched.client)[1]
    ]
    version = world.client.get_model_version("photos", "2")
    assert "of champion version 1 on the same 9 pictures" in version.tags["reason"]
    assert int(world.client.get_model_version_by_alias("photos", version.tags["freezeline.gate"]).version) == 2


def _numbers(client: MlflowClient, run: Run) -> dict[str, list[float]]:
    """Return a trial's losses and scores of every epoch, and its learning rate."""
    metrics = ("train_loss", "val_loss", "val_accuracy", "val_macro_f1")
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in metrics}
    found = {name: [point.value for point in history] for name, history in histories.items()}
    assert all(found.values())
    return {**found, "lr": [float(run.data.params["lr"])]}


def test_a_trial_trained_again_gets_its_numbers_and_can_be_promoted(
    searched: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(shutil.copytree(searched.world.folder, tmp_path / "copy"))
    world.enter(monkeypatch)
    parent, children = runs_of(world.client)
    trial = next(run for run in children if int(run.data.params["trial"]) == parent.data.metrics["best_trial"])
    assert main(["train", "--run", trial.info.run_id]) == 0
    again = runs_of(world.client)[0]
    for metric in ("val_loss", "val_balanced_accuracy", "train_loss"):
        values = [point.value for point in world.client.get_metric_history(trial.info.run_id, metric)]
        assert [point.value for point in world.client.get_metric_history(again.info.run_id, metric)] == values
    capsys.readouterr()
    assert main(["promote", "--run", again.info.run_id]) == 0
    assert "@challenger is now version 2: not better" in capsys.readouterr().out


def test_trials_that_fail_are_told_with_their_reason_and_the_search_has_no_model(
    ray_cluster: None, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    diverging = {"optimizer": "sgd", "lr": "10", "weight_decay": "1", "lr_scheduler": "constant", "max_epochs": "30"}
    assert tune(world, trials="2", **diverging) == 1
    parent, children = runs_of(world.client)
    assert parent.info.status == "FAILED"
    assert [run.info.status for run in children] == ["FAILED", "FAILED"]
    assert "Divergence" in children[0].data.tags["reason"]
    assert "Traceback" in load_text(f"runs:/{children[0].info.run_id}/traceback.txt")
    assert "no trial finished an epoch" in capsys.readouterr().err


def test_its_epochs_are_those_that_were_recorded(searched: Searched) -> None:
    found = epochs_of(searched.client, runs_of(searched.client)[1])
    before = recorded("search")
    assert len(found) == len(before) == 3
    for trial, same in zip(found, before, strict=True):
        for name, values in same.items():
            assert trial[name] == pytest.approx(values, rel=5e-3), name  # processors differ in the last bits
