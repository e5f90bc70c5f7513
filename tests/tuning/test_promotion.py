"""Promotion in a real model registry, with packages whose model is a few lines of Python."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from data.dataset.dataset import Dataset
from data.errors import TrackingError
from tests.tuning.factories import candidate as scored_candidate
from tests.tuning.factories import dataset, ensemble
from tests.tuning.packaged_candidates import PackageCandidate, aliases
from tuning.common.events import STAGE_ATTRIBUTE
from tuning.common.promotion_types import Promotion
from tuning.registry.candidate_store import load_candidate_of_version, load_model
from tuning.registry.client import ModelRegistry
from tuning.registry.model_card import render_model_card
from tuning.registry.promotion import promote
from tuning.registry.smoke_test import ModelLoadError

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = pytest.mark.usefixtures("smoke_tested")


def test_the_first_candidate_becomes_champion(client: MlflowClient, package: PackageCandidate, pets: Dataset) -> None:
    version, promotion = promote(client, package(6), pets)
    assert (version, promotion.alias) == (1, "champion")
    assert aliases(client) == {"champion": 1}


def test_a_version_has_its_evidence_as_tags(client: MlflowClient, package: PackageCandidate, pets: Dataset) -> None:
    promote(client, package(6), pets)
    better = package(10)
    promote(client, better, pets)
    version = client.get_model_version("pets", "2")
    expected = {
        "freezeline.classes": '["cat", "dog"]',
        "freezeline.data_fingerprint": better.data_fingerprint,
        "freezeline.git_commit": "c0ffee",
        "freezeline.gate": "champion",
        "freezeline.forced": "false",
        "previous_champion": "1",
        "test_balanced_accuracy": "1.000000",
        "test_balanced_accuracy_95": "0.950000 to 1.050000",
    }
    assert expected.items() <= version.tags.items()
    assert version.tags["reason"].startswith("better: test balanced accuracy 1.0000 vs. 0.6000 for champion version 1")
    assert json.loads(version.tags["freezeline.evidence"])["wins"] == 8
    assert version.run_id == better.run_id
    first = client.get_model_version("pets", "1").tags
    assert "previous_champion" not in first
    assert all(first.values()), "no tag is empty"


def test_a_new_version_takes_one_request_for_its_identity_and_five_for_its_decision(
    client: MlflowClient, package: PackageCandidate, pets: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(client, package(6), pets)
    set_tag, names = client.set_model_version_tag, []

    def count(*arguments: str) -> None:
        names.append(arguments[2])
        set_tag(*arguments)

    monkeypatch.setattr(client, "set_model_version_tag", count)
    promote(client, package(10), pets)
    assert names == ["freezeline.gate", "freezeline.forced", "reason", "freezeline.evidence", "previous_champion"]


def test_a_registered_model_has_a_description_that_a_person_may_replace(
    client: MlflowClient, package: PackageCandidate, pets: Dataset
) -> None:
    promote(client, package(6), pets)
    description = client.get_registered_model("pets").description
    for part in ("2 classes (cat, dog)", 'load_model("models:/pets@champion")', "report.html", "freezeline champions"):
        assert part in description
    client.update_registered_model("pets", "ours")
    promote(client, package(10), pets)
    assert client.get_registered_model("pets").description == "ours"


@pytest.mark.parametrize(
    ("backbone", "weights", "expected"),
    [
        ("tf_efficientnet_lite0", "auto", "ImageNet, license Apache-2.0"),
        ("timm/tf_efficientnet_lite2", "package", "ImageNet, license Apache-2.0"),
        ("resnet34", "hub", "ImageNet, license unknown: see the publisher of the weights"),
        ("resnet34", "/home/me/resnet.safetensors", "from a local file"),
        ("resnet34", "none", "none"),
    ],
)
def test_the_model_card_has_the_license_of_the_pretrained_weights(backbone: str, weights: str, expected: str) -> None:
    scored = scored_candidate()
    config = scored.members[0].config
    network = config.network.model_copy(update={"backbone": backbone, "weights": weights})
    member = scored.members[0].model_copy(update={"config": config.model_copy(update={"network": network})})
    promotion = Promotion(alias="champion", reason="better", evidence={})
    card = render_model_card(scored.model_copy(update={"members": (member,)}), 1, promotion, "`run`")
    assert f"- Pretrained weights: {expected}\n" in card


def test_the_model_card_of_an_ensemble_has_each_network_with_its_weight() -> None:
    card = render_model_card(ensemble(), 1, Promotion(alias="champion", reason="better", evidence={}), "`run`")
    assert "- 2 networks; the probabilities are the weighted mean of theirs\n" in card
    for part in ("at 32 px, weight 0.75", "at 48 px, weight 0.25", "seed 3", "seed 4", "freezeline train --run ID"):
        assert part in card
    assert "train --model" not in card


def test_the_model_card_has_every_setting_of_the_configuration_once() -> None:
    scored = scored_candidate()
    parts = scored.members[0].config.model_dump(mode="json")
    seed, *others = (parts.pop(name) for name in ("seed", "fold", "images_per_epoch"))
    assert others == [None, None]
    settings = [(name, value) for part in parts.values() for name, value in part.items()]
    assert len(dict(settings)) == len(settings)
    assert {"head_features", "mix", "balance", "layer_decay", "cached_augmentations"} <= dict(settings).keys()
    card = render_model_card(scored, 1, Promotion(alias="champion", reason="better", evidence={}), "`run`")
    (line,) = [line for line in card.splitlines() if line.startswith("- Configuration: ")]
    for name, value in (*settings, ("seed", seed)):
        is_listed = f" {name} {json.dumps(value).strip(chr(34))}," in f"{line},"
        assert is_listed != (name in {"backbone", "image_size", "weights"})


def test_the_model_card_of_a_thousand_classes_ends_with_a_whole_line() -> None:
    names = [f"{number} a class with a name so long that not all of them fit {'x' * 60}" for number in range(1000)]
    card = render_model_card(
        scored_candidate(0.5, names), 1, Promotion(alias="champion", reason="x" * 5000, evidence={}), "`run`"
    )
    assert len(card) <= 4800
    assert card.endswith("|\n\n…\n")
    assert "**Limits**" in card
    assert "Created by run" in card


def test_the_description_of_a_version_is_a_model_card(
    client: MlflowClient, package: PackageCandidate, pets: Dataset
) -> None:
    first = package(6)
    promote(client, first, pets)
    card = client.get_model_version("pets", "1").description
    for part in (
        "An image classifier: 2 classes (cat, dog).\n\n**Decision**",
        "- Data: photos (fingerprint `ffffffffffffffffffffffffffffffff`), 2 different images for training and",
        "- Network: tf_efficientnet_lite0 at 32 px\n- Configuration: seed ",
        "- Pretrained weights: none\n\n**Limits**\n\n- ",
        "**Intended use**",
        "has been evaluated 1 time, including",
        "**Decision**: champion, first champion, better than the baseline",
        "| balanced accuracy | 0.6000 | 0.5500 to 0.6500 |",
        "| cat | 0.600 | 0.600 | 10 |",
        "**Limits**",
        "temperature 1.000",
        'mlflow.pyfunc.load_model("models:/pets/1")',
        f"Created by run `{first.run_id}`, commit `c0ffee`.",
    ):
        assert part in card


def test_the_alias_moves_only_after_the_smoke_test(
    client: MlflowClient,
    package: PackageCandidate,
    pets: Dataset,
    smoke_tested: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    promote(client, package(6), pets)
    assert smoke_tested == ["models:/pets/1"]

    def fail(*_: object) -> None:
        raise ModelLoadError("models:/pets/2 must load in a clean process, but failed: no such file")

    monkeypatch.setattr("tuning.registry.promotion.verify_model_loads", fail)
    with pytest.raises(ModelLoadError, match="must load in a clean process, but failed: no such file"):
        promote(client, package(10), pets)
    assert aliases(client) == {"champion": 1}
    tags = client.get_model_version("pets", "2").tags
    assert (tags["freezeline.gate"], "no such file" in tags["reason"]) == ("broken", True)


def test_the_champion_loads_by_its_alias(client: MlflowClient, package: PackageCandidate, pets: Dataset) -> None:
    promote(client, package(10), pets)
    frame = load_model("models:/pets@champion").predict([Path("dog-1.png"), Path("cat-1.png")])
    assert list(frame["label"]) == ["dog", "cat"]


def test_the_steps_of_a_promotion_are_stages(
    package: PackageCandidate, client: MlflowClient, pets: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    promote(client, package(6), pets)
    with caplog.at_level("INFO"):
        promote(client, package(9), pets)
    assert [record.getMessage() for record in caplog.records if getattr(record, STAGE_ATTRIBUTE, False)] == [
        "checking that version 2 loads in a clean process",
        "evaluating the champion, version 1, on the same images",
    ]


def test_a_better_candidate_becomes_champion(client: MlflowClient, package: PackageCandidate, pets: Dataset) -> None:
    promote(client, package(6), pets)
    version, promotion = promote(client, package(10), pets)
    assert (version, promotion.alias) == (2, "champion")
    assert (promotion.evidence["candidate"], promotion.evidence["champion"]) == pytest.approx((1.0, 0.6))
    assert aliases(client) == {"champion": 2}


@pytest.mark.parametrize("num_correct", [5, 6])
def test_a_worse_or_equal_candidate_becomes_challenger(
    client: MlflowClient, package: PackageCandidate, pets: Dataset, num_correct: int
) -> None:
    promote(client, package(6), pets)
    version, promotion = promote(client, package(num_correct), pets)
    assert (version, promotion.alias) == (2, "challenger")
    assert "not better" in promotion.reason
    assert aliases(client) == {"champion": 1, "challenger": 2}


def test_a_champion_loses_the_challenger_alias(client: MlflowClient, package: PackageCandidate, pets: Dataset) -> None:
    second = package(4)
    promote(client, package(6), pets)
    promote(client, second, pets)
    client.set_registered_model_alias("pets", "champion", "2")
    promote(client, second, pets)
    assert aliases(client) == {"champion": 2}


def test_the_champion_is_evaluated_on_the_candidates_test_images(
    client: MlflowClient, package: PackageCandidate, tmp_path: Path
) -> None:
    promote(client, package(6), dataset(tmp_path))
    fewer_images = dataset(tmp_path, {"train": 4, "val": 2, "test": 5})  # the champion is correct for all of them
    _, promotion = promote(client, package(4, images_per_class=5), fewer_images)
    assert (promotion.alias, promotion.evidence["champion"]) == ("challenger", 1.0)


def test_a_champion_with_other_classes_is_not_replaced(
    client: MlflowClient, package: PackageCandidate, pets: Dataset
) -> None:
    promote(client, package(6, ("cat", "cow")), pets)
    _, promotion = promote(client, package(9), pets)
    assert promotion.alias == "challenger"
    assert "the classes must be those of champion version 1" in promotion.reason
    assert "dog is new and cow is missing" in promotion.reason
    assert aliases(client) == {"champion": 1, "challenger": 2}


def test_the_order_of_classes_does_not_matter(client: MlflowClient, package: PackageCandidate, pets: Dataset) -> None:
    promote(client, package(6, ("dog", "cat")), pets)
    _, promotion = promote(client, package(10), pets)
    assert promotion.alias == "champion"
    assert promotion.evidence["champion"] == pytest.approx(0.6)


@pytest.mark.parametrize(("num_correct", "alias"), [(10, "champion"), (4, "challenger")])
def test_promoting_twice_is_idempotent(
    client: MlflowClient, package: PackageCandidate, pets: Dataset, num_correct: int, alias: str
) -> None:
    promote(client, package(6), pets)
    new_candidate = package(num_correct)
    first, second = promote(client, new_candidate, pets), promote(client, new_candidate, pets)
    assert (first[0], second[0]) == (2, 2)
    assert first[1].alias == second[1].alias == alias
    assert len(client.search_model_versions("name = 'pets'")) == 2
    assert aliases(client)[alias] == 2


def test_promoting_the_champion_again_keeps_its_evidence(
    client: MlflowClient, package: PackageCandidate, pets: Dataset
) -> None:
    promote(client, package(6), pets)
    better = package(10)
    promote(client, better, pets)
    before = client.get_model_version("pets", "2")
    promote(client, better, pets)
    after = client.get_model_version("pets", "2")
    assert (after.tags, after.description) == (before.tags, before.description)


def test_another_package_of_the_same_run_is_another_version(
    client: MlflowClient, package: PackageCandidate, pets: Dataset
) -> None:
    first = package(6)
    promote(client, first, pets)
    resumed = package(9, run_id=first.run_id)  # a resumed search found a better trial
    version, _ = promote(client, resumed, pets)
    assert version == 2


def test_a_server_error_does_not_change_the_champion(
    client: MlflowClient, package: PackageCandidate, pets: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    promote(client, package(9), pets)
    worse = package(1)
    get_registered_model, calls = client.get_registered_model, []

    def fail_once(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise MlflowException("the database is unavailable")  # INTERNAL_ERROR
        return get_registered_model(*args)

    monkeypatch.setattr(client, "get_registered_model", fail_once)
    with contextlib.suppress(MlflowException, TrackingError):
        promote(client, worse, pets)
    assert aliases(client)["champion"] == 1


def test_a_champion_that_cannot_be_evaluated_is_not_replaced(
    client: MlflowClient, package: PackageCandidate, pets: Dataset
) -> None:
    first = package(9)
    promote(client, first, pets)
    shutil.rmtree(client.get_logged_model(first.model_uri.removeprefix("models:/")).artifact_location)
    _, promotion = promote(client, package(1), pets)
    assert promotion.alias == "challenger"
    assert "could not be evaluated on these test images, because " in promotion.reason
    assert "restore its files" in promotion.reason
    assert len(promotion.reason) < 600


def test_a_manually_set_champion_can_be_promoted(
    client: MlflowClient, package: PackageCandidate, pets: Dataset
) -> None:
    candidate = package(6)
    model = client.get_logged_model(candidate.model_uri.removeprefix("models:/"))
    client.create_registered_model("pets")
    client.create_model_version("pets", model.artifact_location, candidate.run_id, model_id=model.model_id)
    client.set_registered_model_alias("pets", "champion", "1")
    assert promote(client, candidate, pets)[1].alias == "champion"


def test_many_classes_with_long_names_can_be_promoted(
    client: MlflowClient, package: PackageCandidate, pets: Dataset
) -> None:
    names = [f"a class with a long name, number {number}" for number in range(1000)]
    version, _ = promote(client, package(5, names), pets)
    assert json.loads(client.get_model_version("pets", str(version)).tags["freezeline.classes"]) == names


def test_a_forced_promotion_records_the_reason_and_the_gates(
    client: MlflowClient, package: PackageCandidate, pets: Dataset
) -> None:
    promote(client, package(9, ("cat", "cow")), pets)
    version, promotion = promote(client, package(7), pets, force="cows were sold")
    assert (version, promotion.alias) == (2, "champion")
    assert aliases(client) == {"champion": 2}
    tags = client.get_model_version("pets", "2").tags
    assert tags["freezeline.forced"] == "true"
    assert tags["reason"].startswith(
        "forced (cows were sold) although the gate rejected it: the classes must be those of champion version 1"
    )
    assert [(change.version, change.kind) for change in ModelRegistry(client, "pets").state().changes] == [
        (1, "promoted"),
        (2, "forced"),
    ]


def test_a_forced_promotion_that_was_interrupted_is_completed_as_forced(
    client: MlflowClient, package: PackageCandidate, pets: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    promote(client, package(9), pets)
    weaker = package(7)
    with monkeypatch.context() as patch:
        patch.setattr(ModelRegistry, "append_history", interrupt)
        with pytest.raises(KeyboardInterrupt):
            promote(client, weaker, pets, force="cows were sold")
    assert promote(client, weaker, pets)[1].forced
    assert ModelRegistry(client, "pets").state().changes[-1].kind == "forced"


def test_a_version_can_be_promoted_by_its_number(
    client: MlflowClient, package: PackageCandidate, pets: Dataset
) -> None:
    promote(client, package(8), pets)
    promote(client, package(7), pets)
    second = load_candidate_of_version(client, "pets", 2)
    assert promote(client, second, pets, force="it is smaller")[0] == 2
    assert aliases(client) == {"champion": 2}


def test_a_repeated_promotion_completes_the_history(
    client: MlflowClient, package: PackageCandidate, pets: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = package(6)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt("now")

    with monkeypatch.context() as patch:
        patch.setattr(ModelRegistry, "append_history", interrupt)
        with pytest.raises(KeyboardInterrupt, match="now"):
            promote(client, first, pets)
    assert aliases(client) == {"champion": 1}
    assert ModelRegistry(client, "pets").state().changes == ()
    promote(client, first, pets)
    (change,) = ModelRegistry(client, "pets").state().changes
    assert change.reason.startswith("first champion")
