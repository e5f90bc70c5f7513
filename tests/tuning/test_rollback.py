"""Rollback to previous champions in a real model registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from data.dataset.dataset import Dataset
from data.errors import TrackingError
from tests.tuning.packaged_candidates import PackageCandidate, aliases
from tuning.registry.client import ModelRegistry
from tuning.registry.promotion import promote
from tuning.registry.rollback import rollback
from tuning.registry.smoke_test import ModelLoadError

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture
def three_champions(client: MlflowClient, package: PackageCandidate, pets: Dataset, smoke_tested: list[str]) -> None:
    for num_correct in (6, 7, 8):
        promote(client, package(num_correct), pets, force="new camera")
    smoke_tested.clear()


@pytest.mark.usefixtures("three_champions")
def test_rollbacks_restore_one_champion_after_another_and_are_recorded(
    client: MlflowClient, smoke_tested: list[str]
) -> None:
    assert rollback(client, "pets", "blurred images").version == 2
    assert aliases(client)["champion"] == 2
    assert rollback(client, "pets", "still blurred").version == 1
    assert aliases(client)["champion"] == 1
    assert smoke_tested == ["models:/pets/2", "models:/pets/1"]
    last_changes = ModelRegistry(client, "pets").state().changes[-2:]
    assert [(change.version, change.previous, change.kind, change.reason) for change in last_changes] == [
        (2, 3, "rolled back", "blurred images"),
        (1, 2, "rolled back", "still blurred"),
    ]
    with pytest.raises(TrackingError, match="needs a previous champion, but version 1 is the first champion of pets"):
        rollback(client, "pets", "more")


@pytest.mark.usefixtures("three_champions")
def test_after_a_rollback_candidates_are_compared_with_the_restored_champion(
    client: MlflowClient, package: PackageCandidate, pets: Dataset
) -> None:
    rollback(client, "pets", "blurred images")
    _, promotion = promote(client, package(10), pets)
    assert promotion.evidence["champion"] == pytest.approx(0.7)
    assert rollback(client, "pets", "worse on dogs").version == 2


@pytest.mark.usefixtures("three_champions")
def test_a_rollback_from_a_manually_set_alias_restores_the_last_recorded_champion(client: MlflowClient) -> None:
    client.set_registered_model_alias("pets", "champion", "1")
    assert rollback(client, "pets", "set by mistake").version == 3


@pytest.mark.usefixtures("three_champions")
def test_a_rollback_does_not_replace_a_champion_that_appeared_meanwhile(
    client: MlflowClient, package: PackageCandidate, pets: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    better = package(10)

    def promote_on_another_machine(*_: object) -> None:
        monkeypatch.setattr("tuning.registry.promotion.verify_model_loads", lambda *_: None)
        monkeypatch.setattr("tuning.registry.champion_change.state_dir", lambda: other_home)
        promote(client, better, pets, force="urgent")

    other_home = pets.root.parent / "another-machine"
    monkeypatch.setattr("tuning.registry.promotion.verify_model_loads", promote_on_another_machine)
    with pytest.raises(TrackingError, match=r"started from champion version 3 of pets, but the alias moved to 4"):
        rollback(client, "pets", "blurred images")
    assert aliases(client)["champion"] == 4


@pytest.mark.usefixtures("three_champions")
def test_a_version_that_fails_the_smoke_test_is_not_restored(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ModelLoadError("its package is gone")

    monkeypatch.setattr("tuning.registry.promotion.verify_model_loads", fail)
    with pytest.raises(ModelLoadError, match="its package is gone"):
        rollback(client, "pets", "blurred images")
    assert aliases(client)["champion"] == 3


@pytest.mark.parametrize(
    ("name", "message"), [("cows", "got 'cows', which does not exist"), ("pets", "but pets has none")]
)
def test_a_rollback_without_a_champion_is_rejected(client: MlflowClient, name: str, message: str) -> None:
    client.create_registered_model("pets")
    with pytest.raises(TrackingError, match=message):
        rollback(client, name, "blurred images")
