"""What a worker reports of a trial; training itself is replaced, Ray is not started."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray.tune

from data.dataset.dataset import Dataset
from data.errors import SearchError
from data.load_dataset import load_dataset
from models.classifier import build_classifier
from models.evaluation.inference import predict
from models.training.trial_io import load_classifier, save_weights, split_batches
from models.trial_config import TrialConfig
from tests.tuning.factories import dataset, epoch_report, recipe, trial_config
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialReport
from tuning.registry.build_candidate import record_test_evaluation
from tuning.search.ray_runtime import concurrency
from tuning.search.trial_worker import TRACEBACK_CHARACTERS, TrialTask, run_trial, train

Tell = Callable[[TrialReport], None]
Run = Callable[[Callable[[TrialTask, Tell], None]], list[dict[str, Any]]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Return a function that runs a trial whose training is given, and returns what Ray was told."""
    told: list[dict[str, Any]] = []
    task = TrialTask(trial_uid="uid", config=trial_config(), search_root=tmp_path, threads=1)
    monkeypatch.setattr(ray.tune, "report", told.append)

    def with_training(train: Callable[[TrialTask, Tell], None]) -> list[dict[str, Any]]:
        monkeypatch.setattr("tuning.search.trial_worker.train", train)
        run_trial({"task": task.to_json()})
        return told

    return with_training


def test_each_epoch_is_reported_with_the_best_score_so_far_and_then_the_end(run: Run) -> None:
    def train(task: TrialTask, tell: Tell) -> None:
        assert task.trial_uid == "uid"
        tell(epoch_report(1, 0.5))
        tell(epoch_report(2, 0.4, is_best=False))
        tell(epoch_report(3, 0.6))

    told = run(train)
    assert [(one["epoch"], one["objective"]) for one in told] == [(1, 0.5), (2, 0.5), (3, 0.6), (3, 0.6)]
    reports = [TrialReport.from_json(one["report"]) for one in told]
    assert reports[0] == epoch_report(1, 0.5)
    assert [report.status for report in reports] == ["running", "running", "running", "complete"]


def test_a_trial_that_raises_is_reported_and_does_not_raise(run: Run) -> None:
    def train(_: TrialTask, tell: Tell) -> None:
        tell(epoch_report(1, 0.5))
        raise ValueError("no such thing")

    report = TrialReport.from_json(run(train)[-1]["report"])
    assert (report.status, report.epoch, report.reason) == ("failed", 1, "ValueError: no such thing")
    assert "no such thing" in report.traceback


@pytest.mark.parametrize(
    ("error", "blameless"),
    [(OSError(errno.ENOSPC, "full"), True), (OSError(errno.EIO, "split_conflict"), False), (MemoryError("no"), False)],
)
def test_a_full_disk_says_nothing_about_the_settings(run: Run, error: Exception, blameless: bool) -> None:
    def fail(task: TrialTask, tell: Tell) -> None:
        raise error

    assert TrialReport.from_json(run(fail)[-1]["report"]).is_infrastructure_failure is blameless


def test_a_trial_that_fails_before_its_first_epoch_has_no_score(run: Run) -> None:
    def train(_: TrialTask, __: Tell) -> None:
        raise MemoryError("x" * 2 * TRACEBACK_CHARACTERS)

    (told,) = run(train)
    assert (told["epoch"], told["objective"]) == (0, float("-inf"))
    assert len(TrialReport.from_json(told["report"]).traceback) == TRACEBACK_CHARACTERS


def trained(root: Path, pictures: Path, **changes: object) -> list[TrialReport]:
    """Return what a trial of two epochs on a folder of pictures tells."""
    paths = SearchPaths(root)
    paths.root.mkdir(parents=True, exist_ok=True)
    paths.dataset.write_text(load_dataset(str(pictures)).to_json())
    fields = trial_config(max_epochs=2).model_dump()
    fields["network"]["backbone"] = "timm/test_efficientnet"
    config = TrialConfig.model_validate(fields | changes)
    told: list[TrialReport] = []
    train(TrialTask(trial_uid="uid", config=config, search_root=root, threads=1), told.append)
    return told


def test_a_trial_gives_the_same_numbers_whether_features_are_kept_or_not(tmp_path: Path, image_folder: Path) -> None:
    live, kept, again = (
        trained(tmp_path / "search", image_folder, features={"feature_cache": reuse, "cached_augmentations": 2})
        for reuse in ("off", "exact", "exact")
    )
    clocked = {"epoch_s": 0.0, "images_per_s": 0.0, "peak_memory_mb": 0.0}
    for told in (kept, again):
        assert [one.metrics | clocked for one in told] == [one.metrics | clocked for one in live]
    assert [told[-1].runtime_info["features"] for told in (live, kept, again)] == ["live", "exact", "exact"]
    assert kept[-1].runtime_info["views_shown"] == live[-1].runtime_info["views_shown"] == 2


def test_weights_of_a_trial_on_kept_features_take_pictures(tmp_path: Path, image_folder: Path) -> None:
    best = max(told.epoch for told in trained(tmp_path, image_folder) if told.is_best)
    data = Dataset.from_json(SearchPaths(tmp_path).dataset.read_text())
    fields = trial_config().model_dump()
    fields["network"]["backbone"] = "timm/test_efficientnet"
    config = TrialConfig.model_validate(fields)
    classifier = load_classifier(config, 3, SearchPaths(tmp_path).weights("uid", best))
    probabilities, labels = predict(classifier, split_batches(data, config, "test").epoch(0))
    assert (classifier.expects_features, probabilities.shape) == (False, (len(labels), 3))


def test_weights_of_another_network_are_refused_and_not_left_out(tmp_path: Path) -> None:
    config = trial_config()
    other = config.model_copy(update={"network": config.network.model_copy(update={"head": "8:norm"})})
    file = tmp_path / "uid.1.safetensors"
    save_weights(build_classifier(other.network, 3, other.preprocessing.image_size, seed=0), file)
    with pytest.raises(SearchError, match=r"but uid\.1\.safetensors was written by another version of"):
        load_classifier(config, 3, file)


def test_a_user_who_interrupts_a_worker_is_not_a_failed_trial(run: Run) -> None:
    def train(_: TrialTask, __: Tell) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        run(train)


def test_a_task_survives_its_own_json(tmp_path: Path) -> None:
    task = TrialTask(trial_uid="uid", config=trial_config(lr=1 / 3), search_root=tmp_path / "a b", threads=2)
    assert TrialTask.from_json(task.to_json()) == task


@pytest.mark.parametrize(
    ("texts", "resources", "at_once"),
    [
        ({}, {"CPU": 8.0}, 8),
        ({"cpus_per_trial": "3"}, {"CPU": 8.0}, 2),
        ({"cpus_per_trial": "16"}, {"CPU": 8.0}, 1),
        ({"max_concurrent": "5"}, {"CPU": 2.0}, 5),
        ({"gpus_per_trial": "0.5"}, {"CPU": 8.0, "GPU": 2.0}, 4),
        ({"gpus_per_trial": "1"}, {"CPU": 8.0, "GPU": 2.0}, 2),
    ],
)
def test_as_many_trials_run_at_once_as_asked_for_or_as_ray_carries(
    texts: dict[str, str], resources: dict[str, float], at_once: int
) -> None:
    assert concurrency(recipe(**texts), resources) == at_once


def test_a_search_keeps_what_its_workers_need(tmp_path: Path, freezeline_home: Path) -> None:
    paths, pets = SearchPaths.from_search_id("abc"), dataset(tmp_path)
    paths.write(recipe(trials=3), pets)
    assert paths.root == freezeline_home / "searches" / "abc"
    assert type(pets).from_json(paths.dataset.read_text()) == pets
    assert type(recipe()).from_json(paths.recipe.read_text()) == recipe(trials=3)


def test_looks_at_the_test_pictures_are_counted_for_each_data_set(tmp_path: Path) -> None:
    pets, more = dataset(tmp_path), dataset(tmp_path, {"train": 5, "val": 2, "test": 10})
    assert [
        record_test_evaluation(pets),
        record_test_evaluation(pets),
        record_test_evaluation(more),
        record_test_evaluation(pets),
    ] == [1, 2, 1, 3]
