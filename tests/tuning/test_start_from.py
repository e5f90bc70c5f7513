"""``tune --from NAME@champion``: the version, its networks in the space, its test images, and mistakes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from data.dataset.dataset import Dataset
from data.errors import DataError, SettingError, TrackingError
from models.backbones.weight_packages import GPU_BACKBONES
from tests.tuning.command_line import Capture, assert_untouched, error_lines
from tests.tuning.factories import BACKBONE, candidate, dataset, ensemble, recipe, trial_config
from tests.tuning.packaged_candidates import PackageCandidate
from tuning.cli.tune import parse_options
from tuning.common.promotion_types import Candidate, CandidateMember
from tuning.recipe.auto import auto_backbones, requested_networks
from tuning.recipe.schema import Recipe
from tuning.registry.candidate_store import save_candidate
from tuning.registry.promotion import promote
from tuning.search.start_trial import start_settings
from tuning.workflows.start_from import Start, load_start, with_configuration

if TYPE_CHECKING:
    from mlflow import MlflowClient


def with_network(packaged: Candidate, **network: Any) -> Candidate:
    """Return a candidate with another network."""
    config = trial_config()
    config = config.model_copy(update={"network": config.network.model_copy(update=network)})
    return packaged.model_copy(update={"members": (CandidateMember(config=config),)})


# --- options ---


@pytest.mark.parametrize(
    "arguments", [("--from", "pets@2"), ("--start-from", "pets@2"), ("--start_from=pets@2",), ("from=pets@2",)]
)
def test_the_option_has_two_names(arguments: tuple[str, ...]) -> None:
    assert parse_options(arguments).start_from == "pets@2"


# --- the recipe ---


def test_every_network_of_an_ensemble_is_a_start_and_its_sizes_are_searched() -> None:
    members = ensemble()
    started = with_configuration(recipe(image_size="32"), members, 2)
    assert (started.name, started.start_from, started.weights) == ("pets", "pets@2", "none")
    assert list(started.start_settings) == [start_settings(member.config) for member in members.members]
    assert str(started.image_size) == "32,48"
    assert Recipe.from_json(started.to_json()) == started


def test_the_searchs_own_name_and_weights_stay() -> None:
    started = with_configuration(recipe(name="cows", weights="auto"), candidate(), 2)
    assert (started.name, started.weights) == ("cows", "auto")


def test_a_network_that_the_recipe_lacks_is_added_and_the_default_stays_the_first() -> None:
    other = with_network(candidate(), backbone="resnet34", weights="auto")
    assert str(with_configuration(recipe(), other, 1).backbone) == f"{BACKBONE},resnet34"


@pytest.mark.parametrize("on_gpu", [False, True])
def test_an_open_backbone_stays_open_and_auto_has_the_network_of_the_start(
    on_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.backbones.weights.hub_reachable", lambda: True)
    for backbone in ("resnet34", GPU_BACKBONES[0]):
        started = with_configuration(Recipe(), with_network(candidate(), backbone=backbone, weights="auto"), 1)
        assert started.backbone is None
        names = [network.backbone for network in requested_networks(started, on_gpu)]
        assert names == list(dict.fromkeys([*auto_backbones("auto", on_gpu), backbone]))


def test_weights_that_fit_one_network_are_used_for_that_network_alone() -> None:
    other = with_network(candidate(), backbone="resnet34", weights="resnet34.pth")
    started = with_configuration(Recipe(), other, 1)
    assert (str(started.backbone), started.weights) == ("resnet34", "resnet34.pth")


def test_a_network_is_added_to_the_first_variant_unless_one_has_it() -> None:
    variants = [{"name": "a", "settings": {"backbone": "resnet34"}}, {"name": "b", "settings": {"image_size": "32,64"}}]
    options = recipe(variants=variants)
    (start,) = with_configuration(options, candidate(), 1).start_settings
    assert start["variant"] == "b"
    added = with_configuration(options, with_network(candidate(), backbone="resnet18"), 1)
    assert added.start_settings[0]["variant"] == "a"
    assert added.variants[0].settings["backbone"] == "resnet34,resnet18"


# --- the registry ---


@pytest.mark.usefixtures("smoke_tested")
def test_the_version_is_kept_if_the_champion_changes(
    client: MlflowClient, package: PackageCandidate, pets: Dataset
) -> None:
    promote(client, package(8), pets)
    start = load_start(recipe(start_from="pets@champion"))
    assert (start.recipe.start_from, start.recipe.name, start.champion_version) == ("pets@1", "pets", 1)
    assert start.test_hashes == candidate().test_hashes
    promote(client, package(10), pets, force="for the test")
    again = load_start(recipe(start_from=start.recipe.start_from))
    assert again.recipe.start_from == "pets@1"
    assert again.champion_version == 2, "the gate compares with the present champion"


@pytest.mark.usefixtures("smoke_tested")
def test_a_version_that_is_no_champion_can_be_the_start_of_another_model(
    client: MlflowClient, package: PackageCandidate, pets: Dataset
) -> None:
    promote(client, package(4), pets)  # not better than the baseline
    start = load_start(recipe(start_from="pets@1", name="cows"))
    assert (start.recipe.name, start.champion, start.test_hashes) == ("cows", None, ())


@pytest.mark.usefixtures("smoke_tested")
@pytest.mark.parametrize(
    ("start_from", "message"),
    [
        ("cows", "name must be a registered model, got 'cows', which does not exist"),
        ("pets@7", "version must be a version of pets, got 7, which does not exist"),
        ("pets", "start_from must be a registered version, but pets has no champion; give the number of a version"),
        ("runs:/1/model", "start_from must be a registered version, NAME@champion, NAME@3 or models:/NAME/3, got"),
    ],
)
def test_a_version_that_does_not_exist_is_rejected(
    client: MlflowClient, package: PackageCandidate, pets: Dataset, start_from: str, message: str
) -> None:
    promote(client, package(4), pets)
    with pytest.raises(TrackingError, match=message):
        load_start(recipe(start_from=start_from))


def test_a_version_that_no_search_has_registered_is_rejected(client: MlflowClient) -> None:
    client.create_registered_model("pets")
    client.create_model_version("pets", "file:///somewhere")
    with pytest.raises(TrackingError, match="version 1 of pets holds no candidate; use another version"):
        load_start(recipe(start_from="pets@1"))


def test_mistakes_end_the_command_before_anything_is_created(
    client: MlflowClient, image_folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,) = error_lines(capsys, "tune", str(image_folder), "--from", "cows@champion")
    assert line.startswith("tune: name must be a registered model, got 'cows'")
    (line,) = error_lines(capsys, "tune", str(image_folder), "--from", "cows", "--tracking", "offline")
    assert line.startswith("tune: start_from needs tracking=server")
    assert_untouched(client)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    (line,) = error_lines(capsys, "tune", str(image_folder), "--from", "cows")
    assert line.startswith("tune: the MLflow server must be available, but http://127.0.0.1:9 is not")


def test_offline_is_refused() -> None:
    with pytest.raises(SettingError, match=r"start_from needs tracking=server.* got offline; remove one of the two"):
        load_start(recipe(start_from="pets", tracking="offline"))


# --- the data set ---


def champion_of(images: Dataset, **changes: Any) -> Start:
    """Return a start whose champion was made with a data set."""
    hashes = {
        "test_hashes": tuple(sample.content_hash for sample in images.split("test")),
        "seen_hashes": tuple(sample.content_hash for sample in images.development),
    }
    return Start(recipe(), candidate().model_copy(update={**hashes, **changes}), 1)


def test_a_grown_data_set_with_the_same_test_images_is_accepted(
    pets: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    grown = dataset(pets.root, {"train": 6, "val": 2, "test": 12})
    champion_of(pets).check(grown)
    Start(recipe()).check(grown)
    assert not caplog.messages


def test_training_on_a_test_image_of_the_champion_is_refused(pets: Dataset) -> None:
    start = champion_of(pets, test_hashes=("cattrain0", "dogval1", "elsewhere"))
    with pytest.raises(
        DataError, match=r"test images of version 1 of pets must not be used .* has 2 such images there"
    ):
        start.check(pets)


def test_test_images_that_the_champion_was_trained_on_are_not_enough(pets: Dataset) -> None:
    seen = tuple(sample.content_hash for sample in pets.samples)
    with pytest.raises(DataError, match=r"must have images that version 1 of pets was not trained on, but .* has none"):
        champion_of(pets, test_hashes=(), seen_hashes=seen).check(pets)


def test_other_classes_are_announced(pets: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        champion_of(pets, classes=("cat", "cow")).check(pets)
    assert caplog.messages[0].startswith(
        "version 1 of pets has other classes (dog is new and cow is missing), so the gate"
    )


def test_the_number_of_test_images_that_the_gate_leaves_out_is_announced(
    pets: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    seen = tuple(sample.content_hash for sample in pets.split("test")[:3])
    with caplog.at_level(logging.INFO):
        champion_of(pets, test_hashes=(), seen_hashes=seen).check(pets)
    assert caplog.messages == ["version 1 of pets was trained on 3 of the 20 test images: the gate leaves these out"]


@pytest.mark.usefixtures("smoke_tested")
def test_the_test_images_are_those_of_the_stored_candidate(
    client: MlflowClient, package: PackageCandidate, pets: Dataset
) -> None:
    packaged = package(8)
    promote(client, packaged, pets)
    save_candidate(client, packaged.model_copy(update={"test_hashes": ("other",)}))
    assert load_start(recipe(start_from="pets")).test_hashes == ("other",)
