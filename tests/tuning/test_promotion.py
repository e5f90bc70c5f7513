"""Promotion carried out in a real registry, with packaged models that are a few lines of Python."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from data.dataset.dataset import Dataset
from data.errors import TrackingError
from tests.tuning.factories import CLASSES, candidate, dataset
from tuning.common.promotion_types import Candidate
from tuning.registry.candidate_store import (
    load_candidate,
    load_candidate_of_version,
    load_model,
    save_candidate,
    save_reference_predictions,
)
from tuning.registry.client import ModelRegistry
from tuning.registry.promotion import promote, rollback
from tuning.registry.smoke_test import ModelLoadError, ReferencePredictions

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
        frame.insert(2, "error", None)
        return frame

mlflow.models.set_model(Fake())
"""
MakeCandidate = Callable[..., Candidate]
PROOF = ReferencePredictions(images=(), probabilities=())


@pytest.fixture(autouse=True)
def loaded_back(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what was loaded back: each takes a process of its own and seconds, so here it is only noted."""
    loaded: list[str] = []
    monkeypatch.setattr("tuning.registry.promotion.check_loads", lambda uri, *_: loaded.append(uri))
    return loaded


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuning.registry.promotion_queue.POLL_S", 0.02)
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


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

    def make(right: int, classes: Sequence[str] = CLASSES, run_id: str | None = None, of: int = 10) -> Candidate:
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
        made = candidate(right / of, classes, run_id, f"models:/{model.model_id}", images_per_class=of)
        save_candidate(client, made)
        save_reference_predictions(client, run_id, made.model_uri, PROOF)
        return made

    return make


def aliases(client: MlflowClient) -> dict[str, int]:
    return {alias: int(version) for alias, version in client.get_registered_model("pets").aliases.items()}


def test_the_first_candidate_is_champion(client: MlflowClient, package: MakeCandidate, pets: Dataset) -> None:
    version, promotion = promote(client, package(6), pets)
    assert (version, promotion.alias) == (1, "champion")
    assert aliases(client) == {"champion": 1}


def test_a_version_carries_its_evidence(client: MlflowClient, package: MakeCandidate, pets: Dataset) -> None:
    promote(client, package(6), pets)
    better = package(10)
    promote(client, better, pets)
    version = client.get_model_version("pets", "2")
    wanted = {
        "classes": '["cat", "dog"]',
        "data_fingerprint": better.data_fingerprint,
        "git_commit": "c0ffee",
        "gate": "champion",
        "forced": "false",
        "previous_champion": "1",
        "test_balanced_accuracy": "1.000000",
        "test_balanced_accuracy_95": "0.950000 to 1.050000",
    }
    assert wanted.items() <= version.tags.items()
    assert version.tags["reason"].startswith("better: test balanced accuracy 1.0000 against 0.6000 of champion version")
    assert json.loads(version.tags["freezeline.evidence"])["wins"] == 8
    assert not [name for name in version.tags if name.startswith("turn.")]
    assert version.run_id == better.run_id


def test_a_versions_description_is_a_model_card(client: MlflowClient, package: MakeCandidate, pets: Dataset) -> None:
    first = package(6)
    promote(client, first, pets)
    card = client.get_model_version("pets", "1").description
    for part in (
        "An image classifier of 2 classes (cat, dog), fine-tuned on photos",
        "**Decision**: champion, there was no champion before",
        "| balanced accuracy | 0.6000 | 0.5500 to 0.6500 |",
        "| cat | 0.600 | 0.600 | 10 |",
        "**Limits**",
        "temperature 1.000",
        'mlflow.pyfunc.load_model("models:/pets/1")',
        f"Made by run `{first.run_id}`, commit `c0ffee`.",
    ):
        assert part in card


def test_the_alias_moves_only_after_the_version_was_loaded_back(
    client: MlflowClient,
    package: MakeCandidate,
    pets: Dataset,
    loaded_back: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    promote(client, package(6), pets)
    assert loaded_back == ["models:/pets/1"]

    def fail(*_: object) -> None:
        raise ModelLoadError("models:/pets/2 can't be loaded by a clean process: no such file")

    monkeypatch.setattr("tuning.registry.promotion.check_loads", fail)
    with pytest.raises(ModelLoadError, match="can't be loaded by a clean process: no such file"):
        promote(client, package(10), pets)
    assert aliases(client) == {"champion": 1}
    tags = client.get_model_version("pets", "2").tags
    assert (tags["freezeline.gate"], "no such file" in tags["reason"]) == ("broken", True)
    assert not [name for name in tags if name.startswith("turn.")]


def test_the_champion_can_be_loaded_by_its_name(client: MlflowClient, package: MakeCandidate, pets: Dataset) -> None:
    promote(client, package(10), pets)
    frame = load_model("models:/pets@champion").predict([Path("dog-1.png"), Path("cat-1.png")])
    assert list(frame["label"]) == ["dog", "cat"]


def test_a_better_candidate_takes_the_alias(client: MlflowClient, package: MakeCandidate, pets: Dataset) -> None:
    promote(client, package(6), pets)
    version, promotion = promote(client, package(10), pets)
    assert (version, promotion.alias) == (2, "champion")
    assert (promotion.evidence["candidate"], promotion.evidence["champion"]) == pytest.approx((1.0, 0.6))
    assert aliases(client) == {"champion": 2}


@pytest.mark.parametrize("right", [5, 6])
def test_a_worse_or_equal_candidate_is_challenger(
    client: MlflowClient, package: MakeCandidate, pets: Dataset, right: int
) -> None:
    promote(client, package(6), pets)
    version, promotion = promote(client, package(right), pets)
    assert (version, promotion.alias) == (2, "challenger")
    assert "not better" in promotion.reason
    assert aliases(client) == {"champion": 1, "challenger": 2}


def test_a_champion_is_nobodys_challenger(client: MlflowClient, package: MakeCandidate, pets: Dataset) -> None:
    second = package(4)
    promote(client, package(6), pets)
    promote(client, second, pets)
    client.set_registered_model_alias("pets", "champion", "2")
    promote(client, second, pets)
    assert aliases(client) == {"champion": 2}


def test_the_champion_is_measured_on_the_candidates_pictures(
    client: MlflowClient, package: MakeCandidate, tmp_path: Path
) -> None:
    promote(client, package(6), dataset(tmp_path))
    fewer = dataset(tmp_path, {"train": 4, "val": 2, "test": 5})  # which the champion all knows
    _, promotion = promote(client, package(4, of=5), fewer)
    assert (promotion.alias, promotion.evidence["champion"]) == ("challenger", 1.0)


def test_a_champion_of_other_classes_stays(client: MlflowClient, package: MakeCandidate, pets: Dataset) -> None:
    promote(client, package(6, ("cat", "cow")), pets)
    _, promotion = promote(client, package(9), pets)
    assert promotion.alias == "challenger"
    assert "knows other classes (cat, cow)" in promotion.reason
    assert aliases(client) == {"champion": 1, "challenger": 2}


def test_classes_in_another_order_are_the_same(client: MlflowClient, package: MakeCandidate, pets: Dataset) -> None:
    promote(client, package(6, ("dog", "cat")), pets)
    _, promotion = promote(client, package(10), pets)
    assert promotion.alias == "champion"
    assert promotion.evidence["champion"] == pytest.approx(0.6)


@pytest.mark.parametrize(("right", "alias"), [(10, "champion"), (4, "challenger")])
def test_to_promote_twice_is_to_promote_once(
    client: MlflowClient, package: MakeCandidate, pets: Dataset, right: int, alias: str
) -> None:
    promote(client, package(6), pets)
    again = package(right)
    first, second = promote(client, again, pets), promote(client, again, pets)
    assert (first[0], second[0]) == (2, 2)
    assert first[1].alias == second[1].alias == alias
    assert len(client.search_model_versions("name = 'pets'")) == 2
    assert aliases(client)[alias] == 2


def test_to_promote_the_champion_again_keeps_its_evidence(
    client: MlflowClient, package: MakeCandidate, pets: Dataset
) -> None:
    promote(client, package(6), pets)
    again = package(10)
    promote(client, again, pets)
    before = client.get_model_version("pets", "2")
    promote(client, again, pets)
    after = client.get_model_version("pets", "2")
    assert (after.tags, after.description) == (before.tags, before.description)


def test_another_package_of_the_same_run_is_another_version(
    client: MlflowClient, package: MakeCandidate, pets: Dataset
) -> None:
    first = package(6)
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
    chosen = package(6)
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
    assert json.loads(client.get_model_version("pets", str(version)).tags["freezeline.classes"]) == names


def test_an_alias_that_someone_else_moves_at_the_same_time_is_told(
    client: MlflowClient, package: MakeCandidate, pets: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(client, package(6), pets)
    set_alias = client.set_registered_model_alias

    def race(name: str, alias: str, version: str) -> None:
        set_alias(name, alias, version)
        set_alias(name, alias, "1")

    monkeypatch.setattr(client, "set_registered_model_alias", race)
    with pytest.raises(TrackingError, match=r"must point to version 2 but was moved to 1 .* run promote again"):
        promote(client, package(10), pets)


# --- against the gate, and back ---


def test_a_person_may_force_a_candidate_with_a_reason_that_is_kept(
    client: MlflowClient, package: MakeCandidate, pets: Dataset
) -> None:
    promote(client, package(9, ("cat", "cow")), pets)
    version, promotion = promote(client, package(7), pets, force="cows were sold")
    assert (version, promotion.alias) == (2, "champion")
    assert aliases(client) == {"champion": 2}
    tags = client.get_model_version("pets", "2").tags
    assert tags["freezeline.forced"] == "true"
    assert tags["reason"].startswith("forced (cows were sold), where the gate said: champion version 1 knows other cl")
    assert [(event.version, event.kind) for event in ModelRegistry(client, "pets").history()] == [
        (1, "promoted"),
        (2, "forced"),
    ]


def test_a_version_can_be_promoted_by_its_number(client: MlflowClient, package: MakeCandidate, pets: Dataset) -> None:
    promote(client, package(8), pets)
    promote(client, package(7), pets)
    again = load_candidate_of_version(client, "pets", 2)
    assert promote(client, again, pets, force="it is smaller")[0] == 2
    assert aliases(client) == {"champion": 2}


@pytest.mark.parametrize(
    ("name", "version", "sentence"),
    [("pets", 7, "version must be one of pets, got 7, which is none"), ("cows", 1, "got 'cows', which is none")],
)
def test_a_version_that_does_not_exist_is_a_mistake(
    client: MlflowClient, package: MakeCandidate, pets: Dataset, name: str, version: int, sentence: str
) -> None:
    promote(client, package(8), pets)
    with pytest.raises(TrackingError, match=sentence):
        load_candidate_of_version(client, name, version)


def three_champions(client: MlflowClient, package: MakeCandidate, pets: Dataset) -> None:
    for right in (6, 7, 8):
        promote(client, package(right), pets, force="as I say")


def test_rollbacks_go_back_one_champion_after_another_and_are_kept(
    client: MlflowClient, package: MakeCandidate, pets: Dataset, loaded_back: list[str]
) -> None:
    three_champions(client, package, pets)
    loaded_back.clear()
    assert rollback(client, "pets", "blurred pictures").version == 2
    assert aliases(client)["champion"] == 2
    assert rollback(client, "pets", "still").version == 1
    assert aliases(client)["champion"] == 1
    assert loaded_back == ["models:/pets/2", "models:/pets/1"]
    last = ModelRegistry(client, "pets").history()[-2:]
    assert [(event.version, event.previous, event.kind, event.reason) for event in last] == [
        (2, 3, "rolled back", "blurred pictures"),
        (1, 2, "rolled back", "still"),
    ]
    with pytest.raises(TrackingError, match="needs an earlier champion, but version 1 is the first of pets"):
        rollback(client, "pets", "more")


def test_after_a_rollback_the_next_is_decided_against_the_older_champion(
    client: MlflowClient, package: MakeCandidate, pets: Dataset
) -> None:
    three_champions(client, package, pets)
    rollback(client, "pets", "blurred pictures")
    _, promotion = promote(client, package(10), pets)
    assert promotion.evidence["champion"] == pytest.approx(0.7)
    assert rollback(client, "pets", "no").version == 2


def test_from_an_alias_that_was_moved_by_hand_a_rollback_goes_to_the_last_champion(
    client: MlflowClient, package: MakeCandidate, pets: Dataset
) -> None:
    three_champions(client, package, pets)
    client.set_registered_model_alias("pets", "champion", "1")
    assert rollback(client, "pets", "who did that").version == 3


def test_a_champion_that_cannot_be_loaded_is_not_rolled_back_to(
    client: MlflowClient, package: MakeCandidate, pets: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    three_champions(client, package, pets)

    def fail(*_: object) -> None:
        raise ModelLoadError("its package is gone")

    monkeypatch.setattr("tuning.registry.promotion.check_loads", fail)
    with pytest.raises(ModelLoadError, match="its package is gone"):
        rollback(client, "pets", "blurred pictures")
    assert aliases(client)["champion"] == 3


@pytest.mark.parametrize(("name", "sentence"), [("cows", "got 'cows', which is none"), ("pets", "but pets has none")])
def test_nothing_to_roll_back_is_a_mistake(client: MlflowClient, name: str, sentence: str) -> None:
    client.create_registered_model("pets")
    with pytest.raises(TrackingError, match=sentence):
        rollback(client, name, "why not")


def test_the_history_is_mended_where_a_promotion_ended_before_it_was_written(
    client: MlflowClient, package: MakeCandidate, pets: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = package(6)
    with monkeypatch.context() as patch:
        patch.setattr("tuning.registry.promotion._record_change", raise_interrupt)
        with pytest.raises(KeyboardInterrupt, match="now"):
            promote(client, first, pets)
    assert aliases(client) == {"champion": 1}
    assert ModelRegistry(client, "pets").history() == []
    promote(client, first, pets)
    (event,) = ModelRegistry(client, "pets").history()
    assert event.reason.startswith("there was no champion before")


def raise_interrupt(*_: object) -> None:
    raise KeyboardInterrupt("now")


# --- what a run holds ---


def test_a_candidate_is_kept_on_its_run(client: MlflowClient) -> None:
    kept = candidate(run_id=client.create_run("0").info.run_id)
    save_candidate(client, kept)
    assert load_candidate(client, kept.run_id) == kept


def test_a_candidate_of_an_older_project_is_a_mistake(client: MlflowClient) -> None:
    run_id = client.create_run("0").info.run_id
    client.log_text(run_id, '{"name": "pets"}', "candidate.json")
    with pytest.raises(TrackingError, match="can't be read; search or train again"):
        load_candidate(client, run_id)


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
