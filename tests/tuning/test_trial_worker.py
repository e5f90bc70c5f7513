"""The reports of a worker; Ray is not started, and most tests replace the training."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray.tune
import torch
from safetensors.torch import load_file

from data.dataset.dataset import Dataset
from data.dataset.folds import development_folds
from data.errors import SearchError
from data.load_dataset import load_dataset
from data.loading.pixel_cache import pixel_cache
from models.classifier import build_classifier
from models.evaluation.inference import predict
from models.training.logistic_regression import C_PATH
from models.training.predictions import load_predictions
from models.training.trial_io import load_classifier, save_weights, split_batches
from models.trial_config import TrialConfig
from tests.tuning.factories import dataset, epoch_report, recipe, trial_config
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialReport
from tuning.registry.build_candidate import record_test_evaluation
from tuning.search.trial_worker import MAX_TRACEBACK_LENGTH, TrialTask, run_trial, train

SendReport = Callable[[TrialReport], None]
OnBatch = Callable[[], None]
Train = Callable[[TrialTask, SendReport, OnBatch], None]
Run = Callable[[Train], list[dict[str, Any]]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Return a function that runs a trial with a replaced training function and returns its reports to Ray."""
    results: list[dict[str, Any]] = []
    task = TrialTask(trial_uid="uid", config=trial_config(), search_root=tmp_path, threads=1)
    monkeypatch.setattr(ray.tune, "report", results.append)

    def with_training(train: Train) -> list[dict[str, Any]]:
        monkeypatch.setattr("tuning.search.trial_worker.train", train)
        run_trial({"task": task.to_json()})
        return results

    return with_training


def test_each_epoch_is_reported_with_the_best_score_so_far_followed_by_the_end(run: Run) -> None:
    def train(task: TrialTask, report: SendReport, on_batch: OnBatch) -> None:
        assert task.trial_uid == "uid"
        report(epoch_report(1, 0.5))
        report(epoch_report(2, 0.4, is_best=False))
        report(epoch_report(3, 0.6))

    results = run(train)
    assert [(result["epoch"], result["objective"]) for result in results] == [(1, 0.5), (2, 0.5), (3, 0.6), (3, 0.6)]
    reports = [TrialReport.from_json(result["report"]) for result in results]
    assert reports[0] == epoch_report(1, 0.5)
    assert [report.status for report in reports] == ["running", "running", "running", "complete"]


def test_an_exception_is_reported_as_a_failed_trial(run: Run) -> None:
    def train(_: TrialTask, report: SendReport, on_batch: OnBatch) -> None:
        report(epoch_report(1, 0.5))
        raise ValueError("no such thing")

    report = TrialReport.from_json(run(train)[-1]["report"])
    assert (report.status, report.epoch, report.reason) == ("failed", 1, "ValueError: no such thing")
    assert "no such thing" in report.traceback


@pytest.mark.parametrize(
    ("error", "is_infrastructure_failure"),
    [(OSError(errno.ENOSPC, "full"), True), (OSError(errno.EIO, "I/O error"), False), (MemoryError("no"), False)],
)
def test_a_full_disk_is_an_infrastructure_failure(run: Run, error: Exception, is_infrastructure_failure: bool) -> None:
    def fail(task: TrialTask, report: SendReport, on_batch: OnBatch) -> None:
        raise error

    report = TrialReport.from_json(run(fail)[-1]["report"])
    assert report.is_infrastructure_failure is is_infrastructure_failure


def test_a_heartbeat_is_sent_at_the_start_even_if_the_trial_fails_and_with_batches_at_most_once_a_minute(
    run: Run, tmp_path: Path
) -> None:
    heartbeat = SearchPaths(tmp_path).heartbeat

    def train(_: TrialTask, __: SendReport, on_batch: OnBatch) -> None:
        heartbeat.unlink()
        for _batch in range(3):
            on_batch()
        raise ValueError("no such thing")

    report = TrialReport.from_json(run(train)[-1]["report"])
    assert report.reason == "ValueError: no such thing"
    assert not heartbeat.exists()


def test_a_trial_that_fails_before_its_first_epoch_has_no_score(run: Run) -> None:
    def train(_: TrialTask, __: SendReport, ___: OnBatch) -> None:
        raise MemoryError("x" * 2 * MAX_TRACEBACK_LENGTH)

    (result,) = run(train)
    assert (result["epoch"], result["objective"]) == (0, float("-inf"))
    assert len(TrialReport.from_json(result["report"]).traceback) == MAX_TRACEBACK_LENGTH


def train_two_epochs(root: Path, images: Path, **changes: object) -> list[TrialReport]:
    """Train a trial of two epochs on a folder of images and return its reports."""
    paths = SearchPaths(root)
    paths.root.mkdir(parents=True, exist_ok=True)
    paths.dataset.write_text(load_dataset(str(images)).to_json())
    fields = trial_config(max_epochs=2).model_dump()
    fields["network"]["backbone"] = "timm/test_efficientnet"
    config = TrialConfig.model_validate(fields | changes)
    reports: list[TrialReport] = []
    train(TrialTask(trial_uid="uid", config=config, search_root=root, threads=1), reports.append)
    return reports


def test_a_trial_has_the_same_metrics_with_and_without_cached_features(tmp_path: Path, image_folder: Path) -> None:
    uncached, computed, cached = (
        train_two_epochs(
            tmp_path / "search", image_folder, features={"feature_cache": feature_cache, "cached_augmentations": 2}
        )
        for feature_cache in ("off", "fp32", "fp32")
    )
    no_time = {"epoch_s": 0.0, "images_per_s": 0.0, "peak_memory_mb": 0.0}
    expected = [report.metrics | no_time for report in uncached]
    for reports in (computed, cached):
        assert [report.metrics | no_time for report in reports] == expected
    all_reports = (uncached, computed, cached)
    assert [reports[-1].runtime_info["features"] for reports in all_reports] == ["uncached", "fp32", "fp32"]
    assert computed[-1].runtime_info["views_shown"] == uncached[-1].runtime_info["views_shown"] == 2


def test_weights_trained_on_cached_features_classify_images(tmp_path: Path, image_folder: Path) -> None:
    best_epoch = max(report.epoch for report in train_two_epochs(tmp_path, image_folder) if report.is_best)
    data = Dataset.from_json(SearchPaths(tmp_path).dataset.read_text())
    fields = trial_config().model_dump()
    fields["network"]["backbone"] = "timm/test_efficientnet"
    config = TrialConfig.model_validate(fields)
    classifier = load_classifier(config, 3, SearchPaths(tmp_path).weights("uid", best_epoch))
    pixels = pixel_cache(data, config.preprocessing)
    probabilities, labels = predict(classifier, split_batches(pixels, config, "test", 3).epoch(0))
    assert (classifier.expects_features, probabilities.shape) == (False, (len(labels), 3))


def test_a_probe_reports_once_and_saves_its_predictions_and_two_fits(tmp_path: Path, image_folder: Path) -> None:
    network = {**trial_config().network.model_dump(), "backbone": "timm/test_efficientnet", "freeze_fraction": 1.0}
    fit = {"optimizer": "lbfgs", "validation": "folds", "refit": True, "max_epochs": 1}
    (report,) = train_two_epochs(tmp_path, image_folder, network=network, fit=fit, batches={"augmentation": "none"})
    paths = SearchPaths(tmp_path)
    data = Dataset.from_json(paths.dataset.read_text())
    logits = load_predictions(paths.predictions("uid"))
    assert logits is not None
    assert logits.oof is not None
    assert len(logits.oof) == len(data.split("train")) + len(data.split("val"))
    assert {"val_loss", "oof_loss", "oof_balanced_accuracy"} <= report.metrics.keys()
    assert "lr" not in report.metrics
    assert report.runtime_info["C"] in C_PATH
    assert paths.final_weights("uid", 1) == paths.refitted_weights("uid")
    fitted, refitted = (load_file(file) for file in (paths.weights("uid", 1), paths.refitted_weights("uid")))
    assert not torch.equal(fitted["head.1.weight"], refitted["head.1.weight"])


def test_a_trial_on_a_fold_is_validated_on_its_images(tmp_path: Path, image_folder: Path) -> None:
    train_two_epochs(tmp_path, image_folder, fold=1)
    paths = SearchPaths(tmp_path)
    data = Dataset.from_json(paths.dataset.read_text())
    folds, logits = development_folds(data), load_predictions(paths.predictions("uid"))
    assert folds is not None
    assert logits is not None
    assert len(logits.val) == (folds == 1).sum()


def test_weights_of_another_network_raise_an_error(tmp_path: Path) -> None:
    config = trial_config()
    other = config.model_copy(update={"network": config.network.model_copy(update={"head": "8:norm"})})
    file = tmp_path / "uid.1.safetensors"
    save_weights(build_classifier(other.network, 3, other.preprocessing.image_size, seed=0), file)
    with pytest.raises(SearchError, match=r"but uid\.1\.safetensors was written by another version of"):
        load_classifier(config, 3, file)


def test_a_keyboard_interrupt_is_not_reported_as_a_failed_trial(run: Run) -> None:
    def train(_: TrialTask, __: SendReport, ___: OnBatch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        run(train)


def test_a_task_survives_a_json_round_trip(tmp_path: Path) -> None:
    task = TrialTask(trial_uid="uid", config=trial_config(lr=1 / 3), search_root=tmp_path / "a b", threads=2)
    assert TrialTask.from_json(task.to_json()) == task


def test_a_search_folder_has_the_recipe_and_the_data_set(tmp_path: Path, freezeline_home: Path) -> None:
    paths, pets = SearchPaths.from_search_id("abc"), dataset(tmp_path)
    paths.write(recipe(trials=3), pets)
    assert paths.root == freezeline_home / "searches" / "abc"
    assert type(pets).from_json(paths.dataset.read_text()) == pets
    assert type(recipe()).from_json(paths.recipe.read_text()) == recipe(trials=3)


def test_test_evaluations_are_counted_per_data_set(tmp_path: Path) -> None:
    pets, more = dataset(tmp_path), dataset(tmp_path, {"train": 5, "val": 2, "test": 10})
    assert [
        record_test_evaluation(pets),
        record_test_evaluation(pets),
        record_test_evaluation(more),
        record_test_evaluation(pets),
    ] == [1, 2, 1, 3]


PRECISIONS = [("fp32", "fp32"), ("bf16", "fp32"), ("bf16", "bf16")]


@pytest.mark.parametrize("feature_cache", ["fp32", "off"])
def test_precisions_change_the_losses_slightly_and_the_weights_stay_float32(
    tmp_path: Path, image_folder: Path, feature_cache: str
) -> None:
    losses, dtypes = [], set()
    for frozen, trained in PRECISIONS:
        features = {"feature_cache": feature_cache, "cached_augmentations": 2, "frozen_precision": frozen}
        fit = {**trial_config(max_epochs=2).fit.model_dump(), "trained_precision": trained}
        reports = train_two_epochs(tmp_path, image_folder, features=features, fit=fit)
        losses.append(reports[-1].metrics["val_loss"])
        best_epoch = max(report.epoch for report in reports if report.is_best)
        dtypes |= {tensor.dtype for tensor in load_file(SearchPaths(tmp_path).weights("uid", best_epoch)).values()}
    assert len(set(losses)) == 3
    assert losses == pytest.approx([losses[0]] * 3, rel=0.03)
    assert dtypes <= {torch.float32, torch.int64}


def test_a_probe_on_features_in_bfloat16_has_nearly_the_same_loss(tmp_path: Path, image_folder: Path) -> None:
    network = {**trial_config().network.model_dump(), "backbone": "timm/test_efficientnet", "freeze_fraction": 1.0}
    fit = {"optimizer": "lbfgs", "validation": "folds", "max_epochs": 1}
    losses = []
    for precision in ("fp32", "bf16"):
        features = {"frozen_precision": precision}
        (report,) = train_two_epochs(
            tmp_path, image_folder, network=network, fit=fit, batches={"augmentation": "none"}, features=features
        )
        losses.append(report.metrics["oof_loss"])
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], abs=0.05)
