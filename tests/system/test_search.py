"""A complete search: Ray runs the trials, MLflow stores them, ONNX Runtime serves the winner."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from mlflow.artifacts import load_text

from data.preprocessing import normalize, read_image, to_pixels
from models.training.trial_io import load_classifier
from models.trial_config import TrialConfig
from tests.conftest import tiny_image
from tests.golden import recorded
from tests.golden.search import epochs_of
from tests.system.conftest import FinishedSearch, Workspace, runs_of, tune
from tests.system.output_filter import foreign_lines
from tuning.__main__ import main
from tuning.common.search_paths import SearchPaths
from tuning.registry.candidate_store import CANDIDATES_FOLDER, load_candidate_of_version
from tuning.search.start_trial import start_settings

CLIENT = """
import base64, json, pathlib, sys
import mlflow
sys.modules.update(dict.fromkeys(("data", "models", "tuning", "freezeline")))  # they cannot be imported
files = [pathlib.Path(name) for name in sys.argv[2:]]
model = mlflow.pyfunc.load_model(sys.argv[1])
inputs = {
    "bytes": [file.read_bytes() for file in files],
    "base64": [base64.b64encode(file.read_bytes()).decode() for file in files],
    "paths": files,
    "batch of 1": files[:1],
    "batch of 2": files[:2],
}
print(json.dumps({name: model.predict(data).to_dict("records") for name, data in inputs.items()}))
"""


def test_a_search_ends_with_a_champion_and_suggests_next_commands(finished_search: FinishedSearch) -> None:
    assert "60 images, 3 classes" in finished_search.screen
    assert "Best trials by validation" in finished_search.screen
    assert re.search(r"^Time +\d+:\d\d$", finished_search.screen, re.MULTILINE)
    assert "95% CI" in finished_search.screen
    assert "raw pixels" in finished_search.screen
    assert "freezeline predict models:/photos@champion" in finished_search.screen
    links = re.findall(r"/#/experiments/1/runs/\w+(\S*)", "".join(finished_search.screen.split("\n")))
    assert links
    assert all(parameters.startswith("?workflowType=machine_learning") for parameters in links)
    assert "CHAMPION  models:/photos@champion is now version 1" in finished_search.screen
    assert int(finished_search.client.get_model_version_by_alias("photos", "champion").version) == 1


def test_the_live_view_shows_the_trials_and_disappears_at_the_end(finished_search: FinishedSearch) -> None:
    stages = (
        "exporting the model to ONNX",
        "evaluating the package on the test split",
        "checking that version 1 loads",
    )
    for part in (*stages, "trial epoch  time  left  score curve", "trials 1/3 done", "▁"):
        assert part in finished_search.terminal_output
        assert part not in finished_search.screen
    assert finished_search.terminal_output.rfind("\x1b[?25h") > finished_search.terminal_output.rfind("\x1b[?25l")


def test_no_library_prints_a_line(finished_search: FinishedSearch) -> None:
    assert foreign_lines(finished_search.screen.splitlines()) == []


def test_every_trial_has_one_child_run_and_none_stays_running(finished_search: FinishedSearch) -> None:
    parent, children = runs_of(finished_search.client)
    assert parent.info.status == "FINISHED"
    assert [run.data.params["trial"] for run in children] == ["0", "1", "2"]
    assert {run.info.status for run in children} <= {"FINISHED", "KILLED"}
    assert len({run.data.tags["freezeline.trial_uid"] for run in children}) == 3
    assert all(run.data.tags["reason"] for run in children)


def test_the_runs_have_names_that_tell_them_apart(finished_search: FinishedSearch) -> None:
    parent, children = runs_of(finished_search.client)
    score = parent.data.metrics["test_balanced_accuracy"]
    assert parent.info.run_name == f"photos 3 trials -> {score:.3f} test"
    for number, run in enumerate(children):
        depth, blocks = run.data.params["freeze_depth"], run.data.params["blocks"]
        assert run.info.run_name == f"t{number:03d} test_efficientnet@32 {depth}/{blocks}"


def test_the_test_metrics_are_linked_to_the_package_and_those_of_classes_are_a_table(
    finished_search: FinishedSearch,
) -> None:
    parent, _ = runs_of(finished_search.client)
    assert not [name for name in parent.data.metrics if "/" in name and not name.startswith("system/")]
    table = json.loads(Path(parent_file(finished_search, "test_scores_by_class.json")).read_text())
    assert table["columns"] == ["class", "recall", "precision", "f1", "test images"]
    assert sorted(row[0] for row in table["data"]) == ["blue", "green", "red"]
    (output,) = parent.outputs.model_outputs
    linked = {metric.key: metric for metric in finished_search.client.get_logged_model(output.model_id).metrics}
    assert linked["test_accuracy"].value == parent.data.metrics["test_accuracy"]
    digest = parent.data.tags["freezeline.data_fingerprint"]
    assert (linked["test_accuracy"].dataset_name, linked["test_accuracy"].dataset_digest) == ("photos", digest)
    assert len(finished_search.client.get_metric_history(parent.info.run_id, "test_accuracy")) == 1


def parent_file(search: FinishedSearch, name: str) -> str:
    """Return the path of a downloaded artifact of the parent run."""
    return search.client.download_artifacts(runs_of(search.client)[0].info.run_id, name)


def test_a_trials_run_has_its_settings_and_every_epoch(finished_search: FinishedSearch) -> None:
    run = runs_of(finished_search.client)[1][0]
    config = TrialConfig.from_json(run.data.tags["freezeline.trial_config"])
    assert float(run.data.params["lr"]) == config.fit.lr
    assert run.data.params["optimizer"] == config.fit.optimizer == "adamw"
    assert {"freeze_fraction", "freeze_depth", "freeze_block", "log10_lr", "batch_size"} <= set(run.data.params)
    scores = ("val_loss", "val_balanced_accuracy", "val_accuracy", "val_macro_f1", "train_loss", "train_accuracy")
    for metric in (*scores, "lr", "epoch_s", "images_per_s", "peak_memory_mb"):
        assert [point.step for point in finished_search.client.get_metric_history(run.info.run_id, metric)] == [1, 2]
    assert int(run.data.params["trainable_parameters"]) > 0
    assert run.data.metrics["trained_s"] > 0
    assert run.data.tags["reason"] == "ran to its end"


def test_the_parent_run_has_the_recipe_the_data_the_environment_and_the_result(finished_search: FinishedSearch) -> None:
    parent, children = runs_of(finished_search.client)
    assert parent.data.params["recipe.trials"] == "3"
    assert "recipe.gate_metric" not in parent.data.params, "only given or resolved settings"
    assert 0 < parent.data.metrics["search_minutes"] < 5
    inputs = parent.inputs.dataset_inputs
    assert inputs[0].dataset.name == "photos"
    assert inputs[0].dataset.digest == parent.data.tags["freezeline.data_fingerprint"]
    for run in children:
        assert [child_input.dataset.digest for child_input in run.inputs.dataset_inputs] == [inputs[0].dataset.digest]
    files = {file.path for file in finished_search.client.list_artifacts(parent.info.run_id)}
    assert {"environment.json", "internal", "test_scores.json", "report.html", "charts"} <= files
    assert {"leaderboard.csv", "test_predictions.csv", "costs.json", "audit.json"} <= files
    best = max(run.data.metrics["best_val_balanced_accuracy"] for run in children)
    assert parent.data.metrics["best_val_balanced_accuracy"] == best
    assert 0 <= parent.data.metrics["test_balanced_accuracy"] <= 1
    # Not the artifact: a test that resumes a copy of this search writes to the same folder of artifacts.
    home = finished_search.workspace.folder / "home"
    report = (home / "searches" / parent.info.run_id / "report.html").read_text()
    winner = children[int(parent.data.metrics["best_trial"])]
    assert re.findall(r"freezeline train [^<]*", report) == [f"freezeline train --run {winner.info.run_id}"]
    assert "<h3>Timeline</h3>" in report


def test_the_default_configuration_is_tried_and_the_winner_is_at_least_as_good(finished_search: FinishedSearch) -> None:
    parent, children = runs_of(finished_search.client)
    default = next(run for run in children if run.data.tags["freezeline.origin"] == "default")
    assert (default.data.params["optimizer"], default.data.params["lr_scheduler"]) == ("adamw", "cosine")
    assert parent.data.metrics["best_val_balanced_accuracy"] >= default.data.metrics["best_val_balanced_accuracy"]


def test_the_champion_loads_without_this_project_and_gives_the_probabilities_of_training(
    finished_search: FinishedSearch, tmp_path: Path
) -> None:
    """Load it from an empty folder, isolated, with pickle disabled; predict batches of 1, 2 and 5."""
    files = sorted(finished_search.workspace.photos.rglob("*.png"))[::12]
    assert len(files) == 5
    environment = {
        **os.environ,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_TRACKING_URI": finished_search.workspace.uri,
    }
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-I", "-c", CLIENT, "models:/photos@champion", *map(str, files)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outputs = json.loads(done.stdout)
    expected = training_probabilities(finished_search, files)
    for name, rows in outputs.items():
        probabilities = np.array([[row[label] for label in ("blue", "green", "red")] for row in rows])
        assert probabilities.shape == (len(rows), 3), name
        np.testing.assert_allclose(probabilities, expected[: len(rows)], atol=1e-4)
    lengths = {name: len(rows) for name, rows in outputs.items()}
    assert lengths == {"bytes": 5, "base64": 5, "paths": 5, "batch of 1": 1, "batch of 2": 2}


def training_probabilities(finished_search: FinishedSearch, files: list[Path]) -> npt.NDArray[np.float64]:
    """Return the trained network's probabilities for the files, computed by the training code."""
    parent, children = runs_of(finished_search.client)
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


def test_evaluate_reproduces_the_logged_test_metrics(
    finished_search: FinishedSearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished_search.workspace.activate(monkeypatch)
    output = tmp_path / "scores.json"
    data = str(finished_search.workspace.photos)
    options = ("--split", "test", "--json", str(output))
    assert main(["evaluate", "--model", "models:/photos@champion", "--data", data, *options]) == 0
    scores = json.loads(output.read_text())["scores"]
    parent = runs_of(finished_search.client)[0]
    assert scores["balanced_accuracy"] == parent.data.metrics["test_balanced_accuracy"]


def test_the_champion_is_calibrated_and_its_version_is_documented(finished_search: FinishedSearch) -> None:
    parent = runs_of(finished_search.client)[0]
    for split in ("val", "test"):
        for name in ("ece", "ece_calibrated"):
            assert 0 <= parent.data.metrics[f"{split}_{name}"] <= 1
    version = finished_search.client.get_model_version("photos", "1")
    assert version.tags["freezeline.git_commit"] == parent.data.tags["freezeline.git_commit"]
    assert version.tags["freezeline.data_fingerprint"] == parent.data.tags["freezeline.data_fingerprint"]
    assert parent.info.run_id in version.description
    assert "| red |" in version.description
    files = {file.path for file in finished_search.client.list_artifacts(parent.info.run_id, CANDIDATES_FOLDER)}
    assert {file.endswith(".reference_predictions.json") for file in files} == {True, False}


def test_a_search_on_the_grown_folder_starts_from_the_champion_and_is_compared_with_it(
    finished_search: FinishedSearch,
    copied_search: Workspace,
    quick_searches: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    workspace = copied_search
    add_images(workspace)
    run_id = workspace.client.create_run(workspace.client.create_experiment("mlflow-run")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    # The folder has another path than that of the first search, so its splits are not known here. Neither the networks
    # nor the settings of the champion are in this space.
    assert tune(workspace, start_from="photos", backbone="test_resnet", image_size="48", lr="1e-3", quiet="on") == 0
    output = capsys.readouterr()
    labels = [label for label in re.findall(r"^[A-Za-z]+", output.out, re.MULTILINE) if label != "GAIN"]
    assert labels[:4] + labels[5:] == ["RESULT", "MODEL", "CHOICE", "TRIALS", "Report"]
    assert labels[4] in {"CHAMPION", "CHALLENGER"}
    assert {line.split()[1] for line in output.err.splitlines()} == {"only"}  # the warnings about small splits
    assert "MLFLOW_RUN_ID" not in os.environ  # otherwise every Ray worker would log into the parent run
    parent, children = runs_of(workspace.client, "mlflow-run")
    assert (parent.info.run_id, len(children)) == (run_id, 3)
    assert [run.data.tags["freezeline.origin"] for run in children] == ["champion", "default", "sampler"]
    assert parent.data.params["recipe.start_from"] == "photos@1"
    before, after = (load_candidate_of_version(workspace.client, "photos", version) for version in (1, 2))
    config = TrialConfig.from_json(children[0].data.tags["freezeline.trial_config"])
    assert start_settings(config) == start_settings(before.members[0].config)
    assert config.network == before.members[0].config.network
    # Images that neither was trained on: all of the first test images, and at least some of the new ones.
    assert set(before.test_hashes) < set(after.test_hashes)
    unseen = set(after.test_hashes) - set(before.seen_hashes)
    version = workspace.client.get_model_version("photos", "2")
    assert f"for champion version 1 on the same {len(unseen)} unseen images" in version.tags["reason"]
    assert int(workspace.client.get_model_version_by_alias("photos", version.tags["freezeline.gate"]).version) == 2


def add_images(workspace: Workspace) -> None:
    """Add ten images to each class."""
    for label, name in enumerate(("blue", "green", "red")):
        for number in range(20, 30):
            tiny_image(label, number, (40, 32)).save(workspace.photos / name / f"{number:03}.png")


def test_a_trial_trained_again_has_the_same_numbers_and_can_be_promoted(
    copied_search: Workspace, quick_searches: None, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = copied_search
    parent, children = runs_of(workspace.client)
    trial = next(run for run in children if int(run.data.params["trial"]) == parent.data.metrics["best_trial"])
    assert main(["train", "--run", trial.info.run_id]) == 0
    retrained = runs_of(workspace.client)[0]
    for metric in ("val_loss", "val_balanced_accuracy", "train_loss"):
        values = [point.value for point in workspace.client.get_metric_history(trial.info.run_id, metric)]
        assert [point.value for point in workspace.client.get_metric_history(retrained.info.run_id, metric)] == values
    capsys.readouterr()
    assert main(["promote", "--run", retrained.info.run_id]) == 0
    assert "@challenger is now version 2: not better" in capsys.readouterr().out


def test_a_search_whose_trials_all_fail_reports_their_reason(
    ray_cluster: None, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    diverging = {"optimizer": "sgd", "lr": "10", "weight_decay": "1", "lr_scheduler": "constant", "max_epochs": "30"}
    assert tune(workspace, trials="2", **diverging) == 1
    parent, children = runs_of(workspace.client)
    assert parent.info.status == "FAILED"
    assert [run.info.status for run in children] == ["FAILED", "FAILED"]
    assert "Divergence" in children[0].data.tags["reason"]
    assert "Traceback" in load_text(f"runs:/{children[0].info.run_id}/traceback.txt")
    assert "no trial finished an epoch" in capsys.readouterr().err


def test_its_epochs_equal_the_golden_values(finished_search: FinishedSearch) -> None:
    trials = epochs_of(finished_search.client, runs_of(finished_search.client)[1])
    golden = recorded("search")
    assert len(trials) == len(golden) == 3
    for trial, golden_trial in zip(trials, golden, strict=True):
        for name, values in golden_trial.items():
            assert trial[name] == pytest.approx(values, rel=5e-3), name  # processors differ in the last bits
