"""Promotion carried out in a real registry, with packaged models that are a few lines of Python."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from data.dataset import Dataset
from data.errors import TrackingError
from tests.tuning.making import CLASSES, candidate, dataset
from tuning.promote import Candidate
from tuning.registry import load_candidate, load_model, promote, save_candidate

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Right for the first pictures of each class as told by their names (cat-0.png), wrong for all others.
MODEL = """
import mlflow, pandas as pd
from mlflow.pyfunc.model import PythonModel

class Fake(PythonModel):
    def load_context(self, context):
        self.config = context.model_config

    def predict(self, context, model_input, params=None):
        rows = []
        for file in model_input.iloc[:, 0]:
            name, _, number = file.stem.rpartition("-")
            right = int(number) < self.config["right"]
            rows.append({one: float((one == name) == right) for one in self.config["classes"]})
        frame = pd.DataFrame(rows)
        frame.insert(0, "label", frame.idxmax(axis=1))
        frame.insert(1, "score", 1.0)
        return frame

mlflow.models.set_model(Fake())
"""
MakeCandidate = Callable[..., Candidate]


@pytest.fixture
def pets(tmp_path: Path) -> Dataset:
    return dataset(tmp_path / "pets")


@pytest.fixture
def package(client: MlflowClient, tmp_path: Path) -> MakeCandidate:
    """Return a maker of candidates whose packaged model is right for ``right`` of ten pictures of each class."""
    from mlflow.entities import LoggedModelStatus
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types import ColSpec, DataType, Schema

    code = tmp_path / "fake.py"
    code.write_text(MODEL)

    def make(right: int, classes: Sequence[str] = CLASSES, run_id: str | None = None) -> Candidate:
        run_id = run_id or client.create_run("0").info.run_id
        model = client.create_logged_model("0", name="model", source_run_id=run_id)
        save_model(
            tmp_path / model.model_id,
            python_model=str(code),
            model_config={"right": right, "classes": list(classes)},
            signature=ModelSignature(inputs=Schema([ColSpec(DataType.string)])),
            pip_requirements=[],
        )
        client.log_model_artifacts(model.model_id, str(tmp_path / model.model_id))
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        return candidate(right / 10, classes, run_id, f"models:/{model.model_id}")

    return make


def aliases(client: MlflowClient) -> dict[str, int]:
    return {alias: int(version) for alias, version in client.get_registered_model("pets").aliases.items()}


def test_the_first_candidate_is_champion(client: MlflowClient, package: MakeCandidate, pets: Dataset) -> None:
    version, promotion = promote(client, package(5), pets)
    assert (version, promotion.alias) == (1, "champion")
    assert aliases(client) == {"champion": 1}


def test_a_version_carries_its_evidence(client: MlflowClient, package: MakeCandidate, pets: Dataset) -> None:
    first = package(5)
    promote(client, first, pets)
    version = client.get_model_version("pets", "1")
    wanted = {
        "classes": '["cat", "dog"]',
        "data_fingerprint": first.data_fingerprint,
        "gate": "champion",
        "reason": "there was no champion before",
        "test_balanced_accuracy": "0.500000",
    }
    assert wanted.items() <= version.tags.items()
    assert version.run_id == first.run_id
    for part in ("2 classes", "photos", "0.5000 (95 % interval 0.4500 to 0.5500, 20 pictures)", first.run_id):
        assert part in version.description


def test_the_champion_can_be_loaded_by_its_name(client: MlflowClient, package: MakeCandidate, pets: Dataset) -> None:
    promote(client, package(10), pets)
    frame = load_model("models:/pets@champion").predict([Path("dog-1.png"), Path("cat-1.png")])
    assert list(frame["label"]) == ["dog", "cat"]


def test_a_better_candidate_takes_the_alias(client: MlflowClient, package: MakeCandidate, pets: Dataset) -> None:
    promote(client, package(5), pets)
    version, promotion = promote(client, package(6), pets)
    assert (version, promotion.alias) == (2, "champion")
    assert promotion.evidence == {"candidate": 0.6, "champion": 0.5}
    assert aliases(client) == {"champion": 2}


@pytest.mark.parametrize("right", [4, 5])
def test_a_worse_or_equal_candidate_is_challenger(
    client: MlflowClient, package: MakeCandidate, pets: Dataset, right: int
) -> None:
    promote(client, package(5), pets)
    version, promotion = promote(client, package(right), pets)
    assert (version, promotion.alias) == (2, "challenger")
    assert "not better" in promotion.reason
    assert aliases(client) == {"champion": 1, "challenger": 2}


def test_a_champion_is_nobodys_challenger(client: MlflowClient, package: MakeCandidate, pets: Dataset) -> None:
    second = package(4)
    promote(client, package(5), pets)
    promote(client, second, pets)
    client.set_registered_model_alias("pets", "champion", "2")
    promote(client, second, pets)
    assert aliases(client) == {"champion": 2}


def test_the_champion_is_measured_on_the_candidates_pictures(
    client: MlflowClient, package: MakeCandidate, tmp_path: Path
) -> None:
    promote(client, package(5), dataset(tmp_path))
    fewer = dataset(tmp_path, {"train": 4, "val": 2, "test": 5})  # which the champion all knows
    _, promotion = promote(client, package(6), fewer)
    assert (promotion.alias, promotion.evidence["champion"]) == ("challenger", 1.0)


def test_a_champion_of_other_classes_stays(client: MlflowClient, package: MakeCandidate, pets: Dataset) -> None:
    promote(client, package(5, ("cat", "cow")), pets)
    _, promotion = promote(client, package(9), pets)
    assert promotion.alias == "challenger"
    assert "knows other classes (cat, cow)" in promotion.reason
    assert aliases(client) == {"champion": 1, "challenger": 2}


def test_classes_in_another_order_are_the_same(client: MlflowClient, package: MakeCandidate, pets: Dataset) -> None:
    promote(client, package(5, ("dog", "cat")), pets)
    _, promotion = promote(client, package(6), pets)
    assert (promotion.alias, promotion.evidence["champion"]) == ("champion", 0.5)


@pytest.mark.parametrize(("right", "alias"), [(6, "champion"), (4, "challenger")])
def test_to_promote_twice_is_to_promote_once(
    client: MlflowClient, package: MakeCandidate, pets: Dataset, right: int, alias: str
) -> None:
    promote(client, package(5), pets)
    again = package(right)
    first, second = promote(client, again, pets), promote(client, again, pets)
    assert (first[0], second[0]) == (2, 2)
    assert first[1].alias == second[1].alias == alias
    assert len(client.search_model_versions("name = 'pets'")) == 2
    assert aliases(client)[alias] == 2


def test_to_promote_the_champion_again_keeps_its_evidence(
    client: MlflowClient, package: MakeCandidate, pets: Dataset
) -> None:
    promote(client, package(5), pets)
    again = package(6)
    promote(client, again, pets)
    before = client.get_model_version("pets", "2")
    promote(client, again, pets)
    after = client.get_model_version("pets", "2")
    assert (after.tags, after.description) == (before.tags, before.description)


def test_another_package_of_the_same_run_is_another_version(
    client: MlflowClient, package: MakeCandidate, pets: Dataset
) -> None:
    first = package(5)
    promote(client, first, pets)
    resumed = package(9, run_id=first.run_id)  # the search went on after Ctrl-C and found a better trial
    version, _ = promote(client, resumed, pets)
    assert version == 2


def test_a_server_that_fails_does_not_make_a_champion(
    client: MlflowClient, package: MakeCandidate, pets: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    promote(client, package(9), pets)
    worse = package(1)
    ask, asked = client.get_registered_model, []

    def fail_once(*arguments: Any) -> Any:
        asked.append(arguments)
        if len(asked) == 1:
            raise MlflowException("the database is away")  # INTERNAL_ERROR
        return ask(*arguments)

    monkeypatch.setattr(client, "get_registered_model", fail_once)
    with contextlib.suppress(MlflowException, TrackingError):
        promote(client, worse, pets)
    assert aliases(client)["champion"] == 1


def test_a_champion_that_cannot_be_measured_stays(
    client: MlflowClient, package: MakeCandidate, pets: Dataset, tmp_path: Path
) -> None:
    first = package(9)
    promote(client, first, pets)
    shutil.rmtree(client.get_logged_model(first.model_uri.removeprefix("models:/")).artifact_location)
    _, promotion = promote(client, package(1), pets)
    assert promotion.alias == "challenger"
    assert "could not be measured" in promotion.reason


def test_a_champion_that_a_person_chose_can_be_promoted(
    client: MlflowClient, package: MakeCandidate, pets: Dataset
) -> None:
    chosen = package(5)
    model = client.get_logged_model(chosen.model_uri.removeprefix("models:/"))
    client.create_registered_model("pets")
    client.create_model_version("pets", model.artifact_location, chosen.run_id, model_id=model.model_id)
    client.set_registered_model_alias("pets", "champion", "1")
    assert promote(client, chosen, pets)[1].alias == "champion"


def test_many_classes_with_long_names_can_be_promoted(
    client: MlflowClient, package: MakeCandidate, pets: Dataset
) -> None:
    names = [f"a class with a long name, number {number}" for number in range(1000)]
    version, _ = promote(client, package(5, names), pets)
    assert json.loads(client.get_model_version("pets", str(version)).tags["classes"]) == names


def test_an_alias_that_someone_else_moves_at_the_same_time_is_told(
    client: MlflowClient, package: MakeCandidate, pets: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(client, package(5), pets)
    set_alias = client.set_registered_model_alias

    def race(name: str, alias: str, version: str) -> None:
        set_alias(name, alias, version)
        set_alias(name, alias, "1")

    monkeypatch.setattr(client, "set_registered_model_alias", race)
    with pytest.raises(TrackingError, match=r"must point to version 2 but was moved to 1 .* run promote again"):
        promote(client, package(6), pets)


# --- what a run holds ---


def test_a_candidate_is_kept_on_its_run(client: MlflowClient) -> None:
    kept = candidate(run_id=client.create_run("0").info.run_id)
    save_candidate(client, kept)
    assert load_candidate(client, kept.run_id) == kept


@pytest.mark.parametrize("run_id", ["0" * 32, "no id", "models:/pets/1"])
def test_a_run_that_does_not_exist_is_a_mistake(client: MlflowClient, run_id: str) -> None:
    with pytest.raises(TrackingError, match=f"must be the id of a search or a training, got '{run_id}'"):
        load_candidate(client, run_id)


def test_a_run_without_a_model_is_a_mistake(client: MlflowClient) -> None:
    run_id = client.create_run("0").info.run_id
    with pytest.raises(TrackingError, match=f"must have packaged a model, but {run_id} has none"):
        load_candidate(client, run_id)


@pytest.mark.parametrize("uri", ["models:/pets@champion", "models:/nothing/1", "runs:/0/model", "nowhere", "models:/"])
def test_a_model_that_does_not_exist_is_a_mistake(client: MlflowClient, uri: str) -> None:
    del client
    with pytest.raises(TrackingError, match=f"must be a packaged model such as models:/NAME@champion, got '{uri}'"):
        load_model(uri)
