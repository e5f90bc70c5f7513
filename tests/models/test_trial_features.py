"""Cached features: results equal to those without a cache, content-addressed entries, and disk faults."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import data.cache.content_cache
from data.cache.content_cache import ContentCache
from data.dataset.dataset import Dataset
from data.load_dataset import load_dataset
from data.loading.pixel_cache import FoldPixels, PixelCache, pixel_cache
from data.loading.views import FixedViewImages
from data.preprocessing import Preprocessing
from data.sources.base import SplitName
from models.backbones.factory import create_backbone
from models.backbones.pretrained_cache import pretrained
from models.classifier import build_classifier
from models.features import feature_files
from models.features.frozen_prefix import CHUNK_SIZE
from models.features.trial_features import TrialFeatures
from models.training.probe import features_of
from models.training.trial_io import split_batches
from tests.conftest import MakeFolder
from tests.models.cached_trial_process import config, train
from tests.models.conftest import NETWORK, SIZE

ROOT = Path(__file__).parents[2]


@pytest.fixture
def dataset(make_folder: MakeFolder) -> Dataset:
    """Return 35 images of three classes of different size: the last chunk and the last batch are partial."""
    return load_dataset(str(make_folder({"blue": 16, "green": 11, "red": 8})))


def feature_keys() -> list[str]:
    return sorted(entry.key for entry in ContentCache().entries() if entry.key.startswith("features/"))


def clear_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drop everything that this process holds in memory, as if it had just started."""
    monkeypatch.setattr(data.cache.content_cache, "_VERIFIED", set())
    feature_files._CACHED_ARRAYS.clear()


@pytest.fixture(autouse=True)
def empty_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    clear_memory(monkeypatch)


# --- the cache's limit ---


def test_a_cache_with_a_small_limit_is_not_used(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FREEZELINE_CACHE_GB", "0.0002")
    uncached, info = train(dataset, config("fp32"))
    assert (info, feature_keys()) == ({"features": "uncached", "views_shown": 1}, [])
    monkeypatch.delenv("FREEZELINE_CACHE_GB")
    assert train(dataset, config("fp32")) == (uncached, {"features": "fp32", "views_shown": 1})


# --- equal results ---

CASES: list[dict[str, Any]] = [
    {},
    {"augmentation": "light", "cached_augmentations": 4},
    {"augmentation": "light", "fraction": 1.0},
    {"fraction": 1.0, "truncate": 1, "head": "16:norm"},
    {"fraction": 1.0, "head_features": "all"},
    {"fraction": 1.0, "head_features": "all", "truncate": 1, "augmentation": "light"},
    {"balance": "oversample"},
    {"balance": "sampler", "augmentation": "flip"},
    {"images_per_epoch": 12, "augmentation": "light"},
    {"backbone": "timm/test_resnet", "fraction": 0.75},
    {"backbone": "timm/test_convnext", "fraction": 0.3},
    {"backbone": "timm/test_vit", "preprocessing": Preprocessing(160)},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fp32_features_give_bit_identical_metrics_to_uncached_training(dataset: Dataset, case: dict[str, Any]) -> None:
    uncached, uncached_info = train(dataset, config("off", **case))
    assert (uncached_info["features"], feature_keys()) == ("uncached", [])
    cached, cached_info = train(dataset, config("fp32", **case))
    assert (cached_info["features"], cached_info["views_shown"]) == ("fp32", uncached_info["views_shown"])
    assert len(feature_keys()) >= 2
    assert cached == uncached


@pytest.mark.parametrize("case", CASES[:4], ids=str)
def test_fp16_features_give_nearly_the_same_metrics(dataset: Dataset, case: dict[str, Any]) -> None:
    fp32, fp16 = (train(dataset, config(precision, **case))[0] for precision in ("fp32", "fp16"))
    for fp32_epoch, fp16_epoch in zip(fp32, fp16, strict=True):
        for name in ("train_loss", "val_loss"):
            assert abs(float.fromhex(fp32_epoch[name]) - float.fromhex(fp16_epoch[name])) < 2e-3
    files = [ContentCache().root / key / "features.npy" for key in feature_keys() if key.endswith("-fp16")]
    assert {np.load(file).dtype for file in files} == {np.dtype(np.float16)}


def test_a_second_trial_computes_no_features_and_gets_the_same_metrics(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = train(dataset, config(augmentation="light"))
    keys = feature_keys()
    monkeypatch.setattr(FixedViewImages, "images", None)  # images are not read
    assert train(dataset, config(augmentation="light"))[0] == first
    clear_memory(monkeypatch)
    assert train(dataset, config(augmentation="light"))[0] == first
    assert feature_keys() == keys


def test_a_probe_on_more_images_computes_the_features_of_the_others_only(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.dataset.stratified_parts.FIRST_SEGMENT", 20)
    dataset = load_dataset(str(make_folder({"blue": 60, "red": 40})))
    read: list[int] = []
    images = FixedViewImages.images

    def counted(self: FixedViewImages, indices: Any, view_indices: Any) -> torch.Tensor:
        read.append(len(indices))
        return images(self, indices, view_indices)

    monkeypatch.setattr(FixedViewImages, "images", counted)

    def features_by_row(count: int) -> dict[int, Any]:
        trial = config(fraction=1.0, optimizer="lbfgs", max_epochs=1, images_per_epoch=count)
        pixels = pixel_cache(dataset, trial.preprocessing)
        classifier = build_classifier(trial.network, 2, SIZE, trial.seed)
        with contextlib.closing(TrialFeatures(classifier, trial, dataset, pixels, lambda: None)) as features:
            batches = split_batches(pixels, trial, "train", 2, features.loader("train"))
            return dict(zip(batches.rows(0).tolist(), features_of(classifier, batches), strict=True))

    few = features_by_row(20)
    assert sum(read) == len(few) == 20
    more = features_by_row(60)
    assert sum(read) == len(more) == 60
    for row, values in few.items():
        np.testing.assert_array_equal(more[row], values)


@pytest.mark.parametrize(
    "case", [{"cached_augmentations": 0, "augmentation": "light"}, {"mix": "mixup"}, {"fraction": 0.0}], ids=str
)
def test_without_features_the_classifier_expects_images(dataset: Dataset, case: dict[str, Any]) -> None:
    trial = config(**case)
    classifier = build_classifier(trial.network, 3, SIZE, trial.seed)
    features = TrialFeatures(classifier, trial, dataset, pixel_cache(dataset, trial.preprocessing), lambda: None)
    assert (features.loader("train"), features.loader("val"), classifier.expects_features) == (None, None, False)
    assert features.runtime_info() == {"features": "uncached", "views_shown": 0}


def test_a_network_that_cannot_be_split_is_uncached(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.freezing.blocks.trace", lambda network: None)
    assert train(dataset, config(seed=11))[1] == {"features": "uncached", "views_shown": 0}
    assert feature_keys() == []


def test_on_batch_is_called_for_each_batch_of_features_that_is_computed(dataset: Dataset) -> None:
    trial, calls = config(), list[str]()
    num_images = len(dataset.split("train"))
    for name in ("computed", "cached"):
        classifier = build_classifier(trial.network, 3, SIZE, trial.seed)
        pixels = pixel_cache(dataset, trial.preprocessing)
        features = TrialFeatures(classifier, trial, dataset, pixels, partial(calls.append, name))
        with contextlib.closing(features):
            loader = features.loader("train")
            assert loader is not None
            loader.epoch(1)(np.arange(num_images), np.zeros(num_images, dtype=int))
    assert calls == ["computed"] * math.ceil(num_images / CHUNK_SIZE)


@pytest.mark.parametrize("precision", ["fp32", "off"])
def test_a_trial_on_a_fold_uses_the_features_of_the_splits(
    dataset: Dataset, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = config(precision, augmentation="light", cached_augmentations=2)
    cache, classifier = pixel_cache(dataset, trial.preprocessing), build_classifier(trial.network, 3, SIZE, trial.seed)
    folds = np.arange(len(dataset.development)) % 3

    def gathered(pixels: PixelCache | FoldPixels, split: SplitName, rows: list[int]) -> torch.Tensor:
        with contextlib.closing(TrialFeatures(classifier, trial, dataset, pixels, lambda: None)) as features:
            loader = features.loader(split)
            assert loader is not None
            return loader.epoch(1)(np.array(rows), np.zeros(len(rows), dtype=int))

    num_train, fold = len(dataset.split("train")), FoldPixels(cache, folds == 0)
    of_split = gathered(cache, "train", [1, 2])  # rows 1 and 2 of the training images, 0 and 1 of the fold's
    assert torch.equal(gathered(fold, "train", [0, 1]), of_split)
    last = fold.rows("train").tolist().index(len(dataset.development) - 1)
    assert torch.equal(gathered(fold, "train", [1, last])[0], of_split[1])
    validation = fold.rows("val").tolist()
    position = next(index for index, row in enumerate(validation) if row >= num_train)
    assert torch.equal(gathered(fold, "val", [position]), gathered(cache, "val", [validation[position] - num_train]))
    if precision != "off":
        monkeypatch.setattr(FixedViewImages, "images", None)  # all features are there now, also for the next fold
        assert gathered(FoldPixels(cache, folds == 1), "train", [0, 3]).shape[0] == 2


def test_entries_are_released_at_the_end_of_a_trial(dataset: Dataset) -> None:
    train(dataset, config())
    assert {entry.in_use for entry in ContentCache().entries() if entry.key.startswith("features/")} == {False}


# --- keys of entries ---


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Return a weights file of the test network, so that the weights don't depend on a trial's seed."""
    torch.manual_seed(0)
    save_file(create_backbone(NETWORK, "none", SIZE).network.state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def changed_weights(weights: Path, name: str) -> str:
    """Return a copy of a weights file in which the tensor whose name ends with ``name`` has other values."""
    from safetensors.torch import load_file

    state = load_file(weights)
    (key,) = (key for key in state if key.endswith(name))
    state[key] = state[key] + 0.1
    file = weights.with_name(f"{name}.safetensors")
    save_file(state, file)
    return str(file)


@pytest.mark.parametrize(
    "change",
    [{"seed": 4}, {"lr": 0.1}, {"batch_size": 5}, {"dropout": 0.5}, {"head": "8"}, {"balance": "weights"},
     {"max_epochs": 1}, {"label_smoothing": 0.1}, {"truncate": 1, "fraction": 0.6}],
    ids=str,
)  # fmt: skip
def test_trials_that_differ_after_the_freeze_line_share_entries(
    dataset: Dataset, weights: Path, change: dict[str, Any]
) -> None:
    train(dataset, config(weights=str(weights)))
    keys = feature_keys()
    train(dataset, config(weights=str(weights), **change))
    assert feature_keys() == keys
    assert len(keys) == 2


@pytest.mark.parametrize(
    "change",
    [{"fraction": 0.8}, {"feature_cache": "fp16"}, {"frozen_precision": "bf16"},
     {"preprocessing": Preprocessing(SIZE, mean=(0.4, 0.5, 0.5))},
     {"preprocessing": Preprocessing(64)}, {"preprocessing": Preprocessing(SIZE, interpolation="bilinear")}],
    ids=str,
)  # fmt: skip
def test_trials_that_differ_before_the_freeze_line_share_no_entries(
    dataset: Dataset, weights: Path, change: dict[str, Any]
) -> None:
    train(dataset, config(weights=str(weights)))
    train(dataset, config(weights=str(weights), **change))
    assert len(feature_keys()) == 4


def test_augmented_trials_share_validation_entries_and_add_views(dataset: Dataset, weights: Path) -> None:
    counts = []
    for case in (
        {},
        {"augmentation": "flip", "cached_augmentations": 1},
        {"augmentation": "flip", "cached_augmentations": 2},
        {"augmentation": "rotate"},
    ):
        train(dataset, config(weights=str(weights), **case))
        counts.append(len(feature_keys()))
    assert counts == [2, 3, 4, 6]


def test_another_version_of_decoding_or_augmentation_shares_no_entries(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = importlib.metadata.version
    case = {"augmentation": "flip", "cached_augmentations": 1}
    train(dataset, config(**case))
    assert len(feature_keys()) == 2
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0" if "opencv" in name else version(name))
    train(dataset, config(**case))
    assert len(feature_keys()) == 3
    monkeypatch.setattr("data.loading.pixel_cache.VERSION", 99)
    train(dataset, config(**case))
    assert len(feature_keys()) == 5


def test_keys_depend_on_weights_before_the_freeze_line_only(dataset: Dataset, weights: Path) -> None:
    train(dataset, config(weights=str(weights)))
    keys = feature_keys()
    train(dataset, config(weights=changed_weights(weights, "conv_head.weight")))
    assert feature_keys() == keys
    train(dataset, config(weights=changed_weights(weights, "conv_stem.weight")))
    assert len(feature_keys()) == 4


def test_keys_depend_on_the_images_but_not_on_class_names(dataset: Dataset, make_folder: MakeFolder) -> None:
    train(dataset, config())
    keys = feature_keys()
    renamed = load_dataset(str(make_folder({"a": 16, "b": 11, "c": 8}, name="renamed")))
    train(renamed, config())
    assert feature_keys() == keys
    train(load_dataset(str(make_folder({"a": 17, "b": 11, "c": 8}, name="more"))), config())
    assert len(feature_keys()) > len(keys)


def test_fingerprints_are_the_same_in_every_process() -> None:
    networks = (("timm/test_vit", 160), (NETWORK, SIZE))
    code = f"""
from models.backbones.pretrained_cache import pretrained
for name, size in {networks}:
    print(*pretrained(name, "none", size, 0).fingerprints)"""
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    other = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=environment, text=True).split()
    ours = [digest for name, size in networks for digest in pretrained(name, "none", size, 0).fingerprints]
    assert other == ours
    assert len(set(ours)) > 8


# --- derived entries ---


@pytest.mark.parametrize("fraction", [0.8, 1.0])
def test_a_deeper_entry_is_derived_from_a_shallower_one_with_the_same_bits(
    dataset: Dataset, fraction: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct, _ = train(dataset, config("fp32", fraction=fraction))
    content = {key: (ContentCache().root / key / "features.npy").read_bytes() for key in feature_keys()}
    ContentCache().clear("features")
    clear_memory(monkeypatch)
    train(dataset, config("fp32", fraction=0.2))
    monkeypatch.setattr(FixedViewImages, "images", None)
    assert train(dataset, config("fp32", fraction=fraction))[0] == direct
    assert {
        key: (ContentCache().root / key / "features.npy").read_bytes() for key in feature_keys() if key in content
    } == content


@pytest.mark.parametrize("truncate", [0, 2])
def test_an_entry_of_the_last_level_is_derived_from_one_of_all_levels(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, truncate: int
) -> None:
    uncached, _ = train(dataset, config("off", fraction=1.0, truncate=truncate))
    train(dataset, config("fp32", fraction=1.0, head_features="all"))
    keys = feature_keys()
    monkeypatch.setattr(FixedViewImages, "images", None)
    assert train(dataset, config("fp32", fraction=1.0, truncate=truncate))[0] == uncached
    assert len(feature_keys()) == len(keys) + 2


def test_fp32_entries_are_never_derived_from_fp16_entries(dataset: Dataset) -> None:
    uncached, _ = train(dataset, config("off", fraction=0.8))
    train(dataset, config("fp16", fraction=0.2))
    assert train(dataset, config("fp32", fraction=0.8))[0] == uncached


# --- concurrency and faults ---


def run_processes(folder: Path, *faults: str) -> list[subprocess.CompletedProcess[str]]:
    """Run small trials concurrently, one process each."""
    command = [sys.executable, "-m", "tests.models.cached_trial_process", str(folder)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    processes = [subprocess.Popen([*command, fault], **pipes) for fault in faults]
    return [
        subprocess.CompletedProcess(process.args, process.wait(), *process.communicate(timeout=120))
        for process in processes
    ]


def test_concurrent_processes_compute_an_entry_once(dataset: Dataset) -> None:
    processes = run_processes(dataset.root, "slow", "slow")
    assert [process.returncode for process in processes] == [0, 0]
    assert sum(process.stderr.count("created\n") for process in processes) == len(feature_keys()) == 2
    uncached, _ = train(dataset, config("off"))
    assert [json.loads(process.stdout) for process in processes] == [uncached, uncached]


def test_the_partial_entry_of_a_killed_process_is_recomputed(dataset: Dataset) -> None:
    (killed,) = run_processes(dataset.root, "killed")
    assert killed.returncode == -9
    assert [path.name for path in (ContentCache().root / "features").rglob(".*.partial")] != []
    assert train(dataset, config())[0] == train(dataset, config("off"))[0]
    assert [path.name for path in (ContentCache().root / "features").rglob(".*.partial")] == []


def test_an_entry_with_a_flipped_byte_is_detected_and_recomputed(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = train(dataset, config())
    files = [ContentCache().root / key / "features.npy" for key in feature_keys()]
    contents = [file.read_bytes() for file in files]
    assert len(files) == 2
    for file, content in zip(files, contents, strict=True):
        state = file.stat()
        file.write_bytes(content[:-3] + bytes([content[-3] ^ 0x40]) + content[-2:])
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    clear_memory(monkeypatch)
    assert train(dataset, config())[0] == first
    assert [file.read_bytes() for file in files] == contents


def test_on_a_full_disk_a_trial_continues_with_the_same_metrics(
    dataset: Dataset, small_disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    uncached, _ = train(dataset, config("off", fraction=0.2))
    monkeypatch.setenv("FREEZELINE_HOME", str(small_disk))
    metrics, info = train(dataset, config("fp32", fraction=0.2))
    assert metrics == uncached
    assert info["features"] == "uncached (disk full)"
    assert "the disk is full" in caplog.text
    assert shutil.disk_usage(small_disk).free > 40_000
    assert list(small_disk.rglob(".*.partial")) == []


def test_a_disk_that_fills_up_during_a_write_leaves_no_partial_entry(
    dataset: Dataset, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uncached, _ = train(dataset, config("off", fraction=0.2))
    monkeypatch.setenv("FREEZELINE_HOME", str(small_disk))
    monkeypatch.setattr("models.features.trial_features.RESERVED_BYTES", -(10**9))  # skips the check for space
    pixel_cache(dataset, config().preprocessing)
    (small_disk / "other").write_bytes(bytes(shutil.disk_usage(small_disk).free - 40_000))
    metrics, info = train(dataset, config("fp32", fraction=0.2))
    assert (metrics, info["features"]) == (uncached, "uncached (disk full)")
    assert list(small_disk.rglob(".*.partial")) == []


def test_other_errors_are_not_treated_as_a_full_disk(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "permission denied")

    monkeypatch.setattr("models.features.trial_features.write_features", fail)
    with pytest.raises(PermissionError, match="permission denied"):
        train(dataset, config())
