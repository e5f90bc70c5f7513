"""``train --run`` and ``train --model``: what is trained again; and the data paths of runs of ``mlflow run``."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mlflow.projects.utils import _create_run

from data.dataset.dataset import Dataset
from data.errors import DataError, TrackingError
from tests.tuning.command_line import Capture, error_lines
from tests.tuning.factories import ensemble, trial_config
from tests.tuning.packaged_candidates import PackageCandidate
from tuning.__main__ import main
from tuning.common.names import (
    DATA_FINGERPRINT_TAG,
    DATA_LIMITS_TAG,
    PARENT_RUN_TAG,
    RECIPE_TAG,
    SAMPLES_FINGERPRINT_TAG,
    TRIAL_CONFIG_TAG,
)
from tuning.recipe.schema import Recipe, TrainingSettings
from tuning.registry.candidate_store import save_candidate
from tuning.registry.promotion import promote
from tuning.workflows.preflight import check_data_path_of_url_run
from tuning.workflows.train import ReproducibleTrial, as_recipe, load_finished_trial, load_version

if TYPE_CHECKING:
    from mlflow import MlflowClient


# --- a finished trial ---


def create_trial_run(client: MlflowClient, recipe: Recipe) -> str:
    """Create a parent run with a recipe and a trial's run below it; return the trial's run id."""
    data = {DATA_FINGERPRINT_TAG: "f", SAMPLES_FINGERPRINT_TAG: "s", DATA_LIMITS_TAG: '{"train": 8000, "val": 2000}'}
    parent = client.create_run("0", tags={RECIPE_TAG: recipe.to_json(), **data})
    tags = {TRIAL_CONFIG_TAG: trial_config(lr=0.25).to_json(), PARENT_RUN_TAG: parent.info.run_id}
    return str(client.create_run("0", tags=tags).info.run_id)


def test_a_finished_trial_is_loaded_with_the_recipe_of_its_own_network(client: MlflowClient) -> None:
    variants = [{"name": "other", "settings": {"backbone": "resnet34"}}]
    options = {"data": "photos", "name": "pets", "cpus_per_trial": 2, "variants": variants}
    trial = load_finished_trial(client, create_trial_run(client, Recipe.model_validate(options)))
    network = {"backbone": "tf_efficientnet_lite0", "image_size": "32", "truncate": "0", "weights": "none"}
    assert trial.training == Recipe.model_validate({**options, "variants": (), **network})
    assert trial.config == trial_config(lr=0.25)
    assert (trial.samples_fingerprint, trial.limits) == ("s", {"train": 8000, "val": 2000})


def test_a_search_is_not_a_trial(client: MlflowClient) -> None:
    parent = client.create_run("0", tags={RECIPE_TAG: Recipe().to_json()}).info.run_id
    with pytest.raises(TrackingError, match=f"must be a trial's run.*{parent}"):
        load_finished_trial(client, parent)


def test_the_run_of_train_can_be_retrained(client: MlflowClient) -> None:
    config, recipe = trial_config(lr=0.25), as_recipe(TrainingSettings(data="/x"))
    tags = {TRIAL_CONFIG_TAG: config.to_json(), RECIPE_TAG: recipe.to_json(), DATA_FINGERPRINT_TAG: "f"}
    trial = load_finished_trial(client, client.create_run("0", tags=tags).info.run_id)
    assert trial.training.data == "/x"
    assert trial.config == config


def test_train_with_a_run_accepts_no_other_settings(capsys: Capture) -> None:
    (line,) = error_lines(capsys, "train", "--run", "abc", "--lr", "0.1", "--data", "demo", "--seed", "3")
    assert line.endswith("got other settings too; remove --lr, --seed.")


# --- a registered version ---


@pytest.mark.usefixtures("smoke_tested")
def test_a_version_trained_again_has_the_same_validation_metrics(client: MlflowClient, image_folder: Path) -> None:
    settings = {"backbone": "small_cnn", "image_size": "16", "max_epochs": "2", "augmentation": "light", "seed": "5"}
    options = [text for name, value in settings.items() for text in (f"--{name}", value)]
    assert main(["train", "--data", str(image_folder), *options, "--lr", "0.003", "--cpus_per_trial", "1"]) == 0
    (original,) = runs(client)
    assert main(["promote", "--run", original, "--force", "the first version"]) == 0
    assert main(["train", "--model", "models:/images/1"]) == 0
    repeated, _ = runs(client)
    for metric in ("train_loss", "val_loss", "val_balanced_accuracy"):
        values = [point.value for point in client.get_metric_history(original, metric)]
        assert len(values) == 2
        assert [point.value for point in client.get_metric_history(repeated, metric)] == values


def runs(client: MlflowClient) -> list[str]:
    """Return the IDs of the runs of the experiment ``images``, newest first."""
    experiment = client.get_experiment_by_name("images")
    assert experiment is not None
    return [run.info.run_id for run in client.search_runs([experiment.experiment_id])]


@pytest.mark.usefixtures("smoke_tested")
@pytest.mark.parametrize("uri", ["models:/pets/1", "models:/pets@champion"])
def test_a_version_is_loaded_with_the_recipe_of_its_run(
    client: MlflowClient, package: PackageCandidate, pets: Dataset, uri: str
) -> None:
    packaged = package(8)
    promote(client, packaged, pets)
    with pytest.raises(TrackingError, match=f"run {packaged.run_id} must be known, but it has no recipe"):
        load_version(client, uri)
    for name, value in {RECIPE_TAG: Recipe(data="photos").to_json(), DATA_FINGERPRINT_TAG: "f"}.items():
        client.set_tag(packaged.run_id, name, value)
    trial = load_version(client, uri)
    assert (trial.config, trial.training.data, trial.samples_fingerprint) == (trial_config(), "photos", "f")


@pytest.mark.usefixtures("smoke_tested")
def test_an_ensemble_is_not_trained_again_as_a_whole(
    client: MlflowClient, package: PackageCandidate, pets: Dataset
) -> None:
    packaged = ensemble(package(8))
    save_candidate(client, packaged)
    promote(client, packaged, pets)
    with pytest.raises(
        TrackingError,
        match=r"must have a single network to be trained again, but models:/pets/1 has 2 "
        r"\(tf_efficientnet_lite0 at 32 px, weight 0.75; .* at 48 px, weight 0.25\); "
        rf"train one of them with --run .* below run {packaged.run_id}",
    ):
        load_version(client, "models:/pets/1")


def test_training_again_on_changed_images_logs_a_warning(pets: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    training = TrainingSettings(data="photos")
    ReproducibleTrial(training, trial_config(), pets.samples_fingerprint, {}).warn_if_data_changed(pets)
    assert not caplog.messages
    ReproducibleTrial(training, trial_config(), "other", {}).warn_if_data_changed(pets)
    (message,) = caplog.messages
    assert "the numbers will differ from the original ones, because photos has changed since" in message


@pytest.mark.parametrize(("option", "other"), [("run", "model"), ("model", "run")])
def test_a_run_and_a_version_cannot_be_trained_again_together(option: str, other: str, capsys: Capture) -> None:
    lines = error_lines(capsys, "train", f"--{option}", "a", f"--{other}", "b")
    assert "run trains a configuration again with its own settings" in lines[0]


# --- data paths under mlflow run ---


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a user's clone of a project; it has an origin."""
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run([*git, "init", "-q", tmp_path / "origin"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], cwd=tmp_path / "origin", check=True)
    subprocess.run([*git, "clone", "-q", tmp_path / "origin", tmp_path / "clone"], check=True)
    return tmp_path / "clone"


def create_project_run(client: MlflowClient, uri: str, clone: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the run that ``mlflow run URI`` creates when the project is in ``clone``."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
    return str(_create_run(uri, "0", str(clone), None, "tune.sh", {}).info.run_id)


def test_a_run_from_a_url_refuses_a_relative_data_path(
    client: MlflowClient, image_folder: Path, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_project_run(client, "https://example.org/freezeline.git", clone, monkeypatch)
    with pytest.raises(
        DataError, match="data must be an absolute path when the project is run from a URL, got 'photos'"
    ):
        check_data_path_of_url_run(client, run, "photos")
    for data in ("demo", str(image_folder), "s3://bucket/photos"):
        check_data_path_of_url_run(client, run, data)


def test_a_run_from_a_local_clone_accepts_a_relative_data_path(
    client: MlflowClient, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_project_run(client, str(clone), clone, monkeypatch)
    assert "mlflow.source.git.repoURL" in client.get_run(run).data.tags
    check_data_path_of_url_run(client, run, "photos")
    (clone / "part").mkdir()
    check_data_path_of_url_run(client, create_project_run(client, f"{clone}#part", clone, monkeypatch), "photos")
    check_data_path_of_url_run(client, client.create_run("0").info.run_id, "photos")
