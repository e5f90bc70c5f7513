"""Building a candidate from one or several trained networks, with a real package and a real tracking database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from data.dataset.dataset import Dataset
from data.load_dataset import load_dataset
from data.loading.batch_config import BatchConfig
from data.loading.pixel_cache import pixel_cache
from data.preprocessing import Preprocessing
from models.classifier import build_classifier
from models.evaluation.calibration import choose_temperature, expected_calibration_error, softmax
from models.evaluation.inference import predict
from models.packaging.inference import predict_proba
from models.training.trial_io import save_weights, split_batches
from models.trial_config import FitConfig, NetworkConfig, TrialConfig
from tuning.common.promotion_types import Candidate
from tuning.recipe.schema import TrainingSettings
from tuning.registry.build_candidate import build_candidate, load_test_predictions, with_absolute_paths
from tuning.registry.candidate_store import load_candidate, load_model, reference_predictions_path
from tuning.registry.exported_graph import (
    NOVELTY_IMAGES,
    ExportedGraph,
    export_ahead,
    limit_novelty,
    novelty_rows,
    take_or_export,
)
from tuning.registry.member_predictions import HeldOutPredictions, TrainedMember, load_members, pixel_caches
from tuning.registry.smoke_test import ReferencePredictions
from tuning.tracking.parent_run import ParentRun

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = pytest.mark.usefixtures("no_pauses")


@pytest.fixture
def images(image_folder: Path) -> Dataset:
    return load_dataset(str(image_folder))


@pytest.fixture
def parent(client: MlflowClient) -> ParentRun:
    return ParentRun.open(client, None, "images")


@pytest.fixture
def members(images: Dataset, tmp_path: Path) -> list[TrainedMember]:
    """Return two networks of different image sizes with random weights."""
    members = []
    for size, seed, weight in ((24, 1, 0.75), (16, 2, 0.25)):
        network = NetworkConfig(backbone="small_cnn", weights="none", freeze_fraction=0)
        config = TrialConfig(
            seed=seed, preprocessing=Preprocessing(size), batches=BatchConfig(), network=network, fit=FitConfig()
        )
        file = tmp_path / f"{size}.safetensors"
        save_weights(build_classifier(network, len(images.classes), size, seed), file)
        members.append(TrainedMember(config, file, weight))
    return members


def mean_probabilities(images: Dataset, members: list[TrainedMember]) -> np.ndarray:
    """Return the weighted mean of the networks' probabilities for the test images."""
    total = np.zeros((len(images.split("test")), len(images.classes)))
    for config, _, weight in members:
        classifier = build_classifier(config.network, len(images.classes), config.preprocessing.image_size, config.seed)
        pixels = pixel_cache(images, config.preprocessing)
        total += weight * predict(classifier, split_batches(pixels, config, "test", len(images.classes)).epoch(0))[0]
    return total


def build(
    parent: ParentRun,
    images: Dataset,
    members: list[TrainedMember],
    folder: Path,
    held_out: HeldOutPredictions | None = None,
) -> Candidate:
    return build_candidate(parent, images, TrainingSettings(data="photos"), members, folder, held_out)


def logged_metrics(parent: ParentRun) -> dict[str, float]:
    assert parent.client is not None
    assert parent.writer.flush() == ()
    metrics: dict[str, float] = parent.client.get_run(parent.run_id).data.metrics
    return metrics


def test_an_ensemble_is_evaluated_and_packaged_with_the_mean_of_its_networks(
    parent: ParentRun, client: MlflowClient, images: Dataset, members: list[TrainedMember], tmp_path: Path
) -> None:
    folder = tmp_path / "package"
    candidate = build(parent, images, members, folder)
    assert [(each.config, each.weight) for each in candidate.members] == [
        (each.config, each.weight) for each in members
    ]
    assert candidate.test_evaluations == 1
    assert candidate.latency_ms is not None
    probabilities, labels = load_test_predictions(folder)
    expected = mean_probabilities(images, members) ** (1 / candidate.temperature)
    expected /= expected.sum(axis=1, keepdims=True)
    assert probabilities == pytest.approx(expected, abs=1e-5)
    assert candidate.y_pred == tuple(probabilities.argmax(axis=1))
    assert candidate.metrics["test_accuracy"] == pytest.approx((probabilities.argmax(axis=1) == labels).mean())
    packaged = load_model(candidate.model_uri)
    assert predict_proba(packaged, images, images.split("test"))[0] == pytest.approx(probabilities, abs=1e-4)
    reference = ReferencePredictions.from_json(reference_predictions_path(folder).read_text())
    frame = packaged.predict(list(reference.images))
    assert frame[list(images.classes)].to_numpy() == pytest.approx(np.array(reference.probabilities), abs=1e-4)
    assert parent.writer.flush() == ()
    assert load_candidate(client, parent.run_id) == candidate


def test_networks_that_were_exported_ahead_are_not_loaded_again(
    parent: ParentRun, images: Dataset, members: list[TrainedMember], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, held_out = tmp_path / "package", HeldOutPredictions(np.zeros((2, 3)), np.arange(2))
    export_ahead(members, images, folder, has_novelty=True)
    before = build(parent, images, members, tmp_path / "other", held_out)
    with monkeypatch.context() as patch:
        patch.setattr("tuning.registry.build_candidate.load_members", None)
        candidate = build(parent, images, members, folder, held_out)
    changed = {"run_id", "model_uri", "evaluated_ms", "test_evaluations", "latency_ms", "size_mb"}
    assert candidate.model_dump(exclude=changed) == before.model_dump(exclude=changed)
    assert {file.name for file in folder.iterdir()} == {file.name for file in (tmp_path / "other").iterdir()}
    assert not list(tmp_path.glob("package.ahead*"))


def test_a_graph_of_other_networks_is_not_used_and_the_package_is_kept_until_then(
    images: Dataset, members: list[TrainedMember], tmp_path: Path
) -> None:
    folder, caches = tmp_path / "package", pixel_caches(members, images)

    def take(changed: list[TrainedMember]) -> ExportedGraph:
        return take_or_export(changed, lambda: load_members(changed, 3), caches, folder, has_novelty=True)

    first = take(members)
    (folder / "of_the_first").touch()
    swapped = [member._replace(weight=1 - member.weight) for member in members]
    export_ahead(swapped, images, folder, has_novelty=True)
    assert (folder / "of_the_first").exists()
    save_weights(build_classifier(members[0].config.network, 3, 24, seed=9), members[0].weights)
    assert len({first.source, take(swapped).source, take(members).source}) == 3  # the same files with other weights
    assert not (folder / "of_the_first").exists()


def test_the_temperature_is_chosen_on_the_validation_split_or_on_held_out_predictions(
    parent: ParentRun, images: Dataset, members: list[TrainedMember], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(images.classes), 200)
    logits = 3 * rng.normal(size=(200, len(images.classes)))
    logits[np.arange(200), labels] += 3  # right in most cases, and too confident
    temperature = choose_temperature(logits, labels)
    assert temperature > 1.2
    single = [members[0]._replace(weight=1.0)]
    by_default = build(parent, images, single, tmp_path / "first")
    assert by_default.temperature != temperature
    candidate = build(parent, images, single, tmp_path / "second", HeldOutPredictions(logits, labels))
    assert candidate.temperature == temperature
    metrics = logged_metrics(parent)
    assert metrics["val_ece"] == pytest.approx(expected_calibration_error(softmax(logits), labels))
    assert metrics["val_ece_calibrated"] == pytest.approx(
        expected_calibration_error(softmax(logits, temperature), labels)
    )
    assert candidate.metrics["test_ece"] == by_default.metrics["test_ece"]
    assert candidate.y_pred == by_default.y_pred


def test_paths_of_data_and_images_are_absolute_and_other_sources_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "demo"):
        (tmp_path / name).mkdir()
    (tmp_path / "labels.csv").write_text("path,label\n")
    resolved = with_absolute_paths(TrainingSettings(data="labels.csv", images="photos"))
    assert (resolved.data, resolved.images) == (str(tmp_path / "labels.csv"), str(tmp_path / "photos"))
    for data in ("demo", "s3://bucket/photos", "missing"):
        unchanged = TrainingSettings(data=data, images="beside the table")
        assert with_absolute_paths(unchanged) == unchanged


def test_the_images_for_novelty_are_of_every_class_in_proportion() -> None:
    labels = np.repeat(np.arange(4), (5_000, 3_000, 10, 1))
    counts = np.bincount(labels[novelty_rows(labels)])
    assert counts.tolist() == [313, 188, 2, 1]
    assert abs(counts.sum() - NOVELTY_IMAGES) <= 4
    few = np.repeat(np.arange(2), 20)
    assert novelty_rows(few).tolist() == list(range(40))
    assert len(novelty_rows(np.zeros(0, dtype=np.int64))) == 0


def test_novelty_that_exceeds_the_size_limit_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    graph, novelty = tmp_path / "model.onnx", tmp_path / "novelty.npz"
    graph.write_bytes(bytes(2_000_000))
    novelty.write_bytes(bytes(1_000_000))
    for max_mb in (None, 3.0):
        limit_novelty(tmp_path, graph, max_mb)
        assert novelty.exists()
    with caplog.at_level("INFO"):
        limit_novelty(tmp_path, graph, 2.9)
    assert not novelty.exists()
    assert "with it, it would have 3.0 MB, and max_mb is 2.9" in caplog.text
