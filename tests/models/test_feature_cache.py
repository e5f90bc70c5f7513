"""Kept features: the same numbers as without, made once, named by content, whatever the disk does."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import shutil
import subprocess
import sys
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
from data.loading.batch_config import BatchConfig
from data.loading.pixel_cache import pixel_cache
from data.loading.views import FixedViewImages
from data.preprocessing import Preprocessing
from models.backbones.factory import create_backbone
from models.classifier import build_classifier
from models.features import feature_files
from models.features.caching_policy import MAX_BYTES_PER_TRIAL, CachingPlan, caching_plan
from models.features.feature_cache import TrialFeatures
from models.features.feature_files import open_features, write_features
from models.trial_config import FeaturesConfig
from tests.conftest import MakeFolder
from tests.models.cached_trial_process import config, train
from tests.models.conftest import NETWORK, SIZE

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pictures(make_folder: MakeFolder) -> Dataset:
    """Return 35 pictures of three classes of different size: chunks and batches with a rest."""
    return load_dataset(str(make_folder({"blue": 16, "green": 11, "red": 8})))


def feature_keys() -> list[str]:
    return sorted(entry.key for entry in ContentCache().entries() if entry.key.startswith("features/"))


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make as if the process had just started."""
    monkeypatch.setattr(data.cache.content_cache, "_VERIFIED", set())
    feature_files._SMALL.clear()


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch)


# --- the plan ---


@pytest.mark.parametrize(
    ("features", "batches", "numbers", "pictures", "expected"),
    [
        ({}, {}, 100, 1000, CachingPlan("fp16", 4)),
        ({"feature_cache": "fp32"}, {}, 100, 1000, CachingPlan("fp32", 4)),
        ({"feature_cache": "off"}, {}, 100, 1000, CachingPlan("uncached", 4)),
        ({"cached_augmentations": 9}, {}, 100, 1000, CachingPlan("fp16", 9)),
        ({"cached_augmentations": 0}, {}, 100, 1000, CachingPlan("uncached", 0)),
        ({}, {"augmentation": "none"}, 100, 1000, CachingPlan("fp16", 1)),
        ({"cached_augmentations": 0}, {"augmentation": "none"}, 100, 1000, CachingPlan("fp16", 1)),
        ({}, {"augmentation": "none", "balance": "oversample"}, 100, 1000, CachingPlan("fp16", 5)),
        (
            {"cached_augmentations": 0},
            {"augmentation": "none", "balance": "oversample"},
            100,
            1000,
            CachingPlan("uncached", 0),
        ),
        ({}, {"mix": "mixup"}, 100, 1000, CachingPlan("uncached", 0)),
        ({}, {"mix": "cutmix", "augmentation": "none"}, 100, 1000, CachingPlan("uncached", 0)),
        ({}, {}, 0, 1000, CachingPlan("uncached", 0)),
        ({}, {}, MAX_BYTES_PER_TRIAL // 8000, 1000, CachingPlan("fp16", 4)),
        ({}, {}, MAX_BYTES_PER_TRIAL // 8000 + 1, 1000, CachingPlan("uncached", 4)),
        ({"feature_cache": "fp32"}, {}, MAX_BYTES_PER_TRIAL // 8000, 1000, CachingPlan("uncached", 4)),
    ],
)
def test_what_is_kept_follows_from_the_configuration(
    features: dict[str, Any], batches: dict[str, Any], numbers: int, pictures: int, expected: CachingPlan
) -> None:
    assert caching_plan(FeaturesConfig(**features), BatchConfig(**batches), numbers, pictures, 20 * 10**9) == expected


def test_what_would_take_more_than_a_quarter_of_the_store_is_not_kept() -> None:
    limit = 8_000_000
    assert caching_plan(FeaturesConfig(), BatchConfig(), 250, 1000, limit) == CachingPlan("fp16", 4)
    assert caching_plan(FeaturesConfig(), BatchConfig(), 251, 1000, limit) == CachingPlan("uncached", 4)


def test_a_store_that_is_too_small_is_left_alone(pictures: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FREEZELINE_CACHE_GB", "0.0002")
    live, facts = train(pictures, config("fp32"))
    assert (facts, feature_keys()) == ({"features": "uncached", "views_shown": 1}, [])
    monkeypatch.delenv("FREEZELINE_CACHE_GB")
    assert train(pictures, config("fp32")) == (live, {"features": "fp32", "views_shown": 1})


# --- the same numbers ---

CASES: list[dict[str, Any]] = [
    {},
    {"augmentation": "light", "cached_augmentations": 4},
    {"augmentation": "light", "fraction": 1.0},
    {"fraction": 1.0, "truncate": 1, "head": "16:norm"},
    {"fraction": 1.0, "head_features": "all"},
    {"fraction": 1.0, "head_features": "all", "truncate": 1, "augmentation": "light"},
    {"balance": "oversample"},
    {"balance": "sampler", "augmentation": "flip"},
    {"backbone": "timm/test_resnet", "fraction": 0.75},
    {"backbone": "timm/test_convnext", "fraction": 0.3},
    {"backbone": "timm/test_vit", "preprocessing": Preprocessing(160)},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_exact_features_give_the_same_metrics_bit_for_bit_as_none_at_all(
    pictures: Dataset, case: dict[str, Any]
) -> None:
    live, live_facts = train(pictures, config("off", **case))
    assert (live_facts["features"], feature_keys()) == ("uncached", [])
    kept, kept_facts = train(pictures, config("fp32", **case))
    assert (kept_facts["features"], kept_facts["views_shown"]) == ("fp32", live_facts["views_shown"])
    assert len(feature_keys()) >= 2
    assert kept == live


@pytest.mark.parametrize("case", CASES[:4], ids=str)
def test_features_in_half_precision_give_nearly_the_same_metrics(pictures: Dataset, case: dict[str, Any]) -> None:
    exact, half = (train(pictures, config(reuse, **case))[0] for reuse in ("fp32", "fp16"))
    for one, other in zip(exact, half, strict=True):
        for name in ("train_loss", "val_loss"):
            assert abs(float.fromhex(one[name]) - float.fromhex(other[name])) < 2e-3
    files = [ContentCache().root / key / "0.npy" for key in feature_keys() if key.endswith("-half")]
    assert {np.load(file).dtype for file in files} == {np.dtype(np.float16)}


def test_a_second_trial_makes_nothing_and_gets_the_same(pictures: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = train(pictures, config(augmentation="light"))
    made = feature_keys()
    monkeypatch.setattr(FixedViewImages, "images", None)  # nothing but features is looked at
    assert train(pictures, config(augmentation="light"))[0] == first
    forget(monkeypatch)
    assert train(pictures, config(augmentation="light"))[0] == first
    assert feature_keys() == made


@pytest.mark.parametrize(
    "case", [{"cached_augmentations": 0, "augmentation": "light"}, {"mix": "mixup"}, {"fraction": 0.0}], ids=str
)
def test_what_is_live_is_as_if_there_were_no_features(pictures: Dataset, case: dict[str, Any]) -> None:
    trial = config(**case)
    classifier = build_classifier(trial.network, 3, SIZE, trial.seed)
    features = TrialFeatures(classifier, trial, pictures, pixel_cache(pictures, trial.preprocessing))
    assert (features.loader("train"), features.loader("val"), classifier.expects_features) == (None, None, False)
    assert features.runtime_info() == {"features": "uncached", "views_shown": 0}


def test_a_network_that_cannot_be_cut_is_live(pictures: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.freezing.blocks.trace", lambda network: None)
    assert train(pictures, config(seed=11))[1] == {"features": "uncached", "views_shown": 0}
    assert feature_keys() == []


def test_entries_are_let_go_when_a_trial_is_over(pictures: Dataset) -> None:
    train(pictures, config())
    assert {entry.in_use for entry in ContentCache().entries() if entry.key.startswith("features/")} == {False}


# --- names ---


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Return a weights file of the test network, so that a trial's seed doesn't decide its weights."""
    torch.manual_seed(0)
    save_file(create_backbone(NETWORK, "none", SIZE).network.state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def changed(weights: Path, name: str) -> str:
    """Return a copy of a weights file in which the tensor whose name ends with ``name`` is another."""
    from safetensors.torch import load_file

    state = load_file(weights)
    (found,) = (key for key in state if key.endswith(name))
    state[found] = state[found] + 0.1
    file = weights.with_name(f"{name}.safetensors")
    save_file(state, file)
    return str(file)


@pytest.mark.parametrize(
    "change",
    [{"seed": 4}, {"lr": 0.1}, {"batch_size": 5}, {"dropout": 0.5}, {"head": "8"}, {"balance": "weights"},
     {"max_epochs": 1}, {"label_smoothing": 0.1}, {"truncate": 1, "fraction": 0.6}],
    ids=str,
)  # fmt: skip
def test_trials_that_differ_behind_the_line_share_entries(
    pictures: Dataset, weights: Path, change: dict[str, Any]
) -> None:
    train(pictures, config(weights=str(weights)))
    made = feature_keys()
    train(pictures, config(weights=str(weights), **change))
    assert feature_keys() == made
    assert len(made) == 2


@pytest.mark.parametrize(
    "change",
    [{"fraction": 0.8}, {"feature_cache": "fp16"}, {"preprocessing": Preprocessing(SIZE, mean=(0.4, 0.5, 0.5))},
     {"preprocessing": Preprocessing(64)}, {"preprocessing": Preprocessing(SIZE, interpolation="bilinear")}],
    ids=str,
)  # fmt: skip
def test_trials_that_differ_before_the_line_share_nothing(
    pictures: Dataset, weights: Path, change: dict[str, Any]
) -> None:
    train(pictures, config(weights=str(weights)))
    train(pictures, config(weights=str(weights), **change))
    assert len(feature_keys()) == 4


def test_an_augmented_trial_shares_validation_and_further_views_are_added(pictures: Dataset, weights: Path) -> None:
    counts = []
    for case in (
        {},
        {"augmentation": "flip", "cached_augmentations": 1},
        {"augmentation": "flip", "cached_augmentations": 2},
        {"augmentation": "rotate"},
    ):
        train(pictures, config(weights=str(weights), **case))
        counts.append(len(feature_keys()))
    assert counts == [2, 3, 4, 6]


def test_another_version_of_what_makes_pictures_or_views_shares_nothing(
    pictures: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = importlib.metadata.version
    case = {"augmentation": "flip", "cached_augmentations": 1}
    train(pictures, config(**case))
    assert len(feature_keys()) == 2
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0" if "opencv" in name else version(name))
    train(pictures, config(**case))
    assert len(feature_keys()) == 3
    monkeypatch.setattr("data.loading.pixel_cache.VERSION", 99)
    train(pictures, config(**case))
    assert len(feature_keys()) == 5


def test_weights_count_up_to_the_line_only(pictures: Dataset, weights: Path) -> None:
    train(pictures, config(weights=str(weights)))
    made = feature_keys()
    train(pictures, config(weights=changed(weights, "conv_head.weight")))
    assert feature_keys() == made
    train(pictures, config(weights=changed(weights, "conv_stem.weight")))
    assert len(feature_keys()) == 4


def test_other_pictures_have_other_names_and_class_names_do_not_matter(
    pictures: Dataset, make_folder: MakeFolder
) -> None:
    train(pictures, config())
    made = feature_keys()
    renamed = load_dataset(str(make_folder({"a": 16, "b": 11, "c": 8}, name="renamed")))
    train(renamed, config())
    assert feature_keys() == made
    train(load_dataset(str(make_folder({"a": 17, "b": 11, "c": 8}, name="more"))), config())
    assert len(feature_keys()) > len(made)


def test_a_prefix_has_the_same_name_in_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"""
import torch; from models.backbones.pretrained_cache import prepared
print(*prepared("timm/test_vit", "none", 160, 0).names, *prepared({NETWORK!r}, "none", {SIZE}, 0).names)"""
    told = [
        subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    ]
    assert told[0] == told[1]
    assert len(set(told[0].split())) > 8


# --- one pass, and chains ---


def test_linear_probes_of_the_last_cuts_are_one_entry(pictures: Dataset) -> None:
    live = [train(pictures, config("off", fraction=1.0, truncate=t))[0] for t in range(3)]
    kept = [train(pictures, config("fp32", fraction=1.0, truncate=t))[0] for t in range(3)]
    assert kept == live
    assert len({json.dumps(told) for told in kept}) == 3
    assert len(feature_keys()) == 2


@pytest.mark.parametrize("fraction", [0.8, 1.0])
def test_a_deeper_entry_begins_at_a_shallower_one_and_has_the_same_bits(
    pictures: Dataset, fraction: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct, _ = train(pictures, config("fp32", fraction=fraction))
    content = {key: (ContentCache().root / key / "0.npy").read_bytes() for key in feature_keys()}
    ContentCache().clear("features")
    forget(monkeypatch)
    train(pictures, config("fp32", fraction=0.2))
    monkeypatch.setattr(FixedViewImages, "images", None)
    assert train(pictures, config("fp32", fraction=fraction))[0] == direct
    assert {
        key: (ContentCache().root / key / "0.npy").read_bytes() for key in feature_keys() if key in content
    } == content


@pytest.mark.parametrize("truncate", [0, 2])
def test_a_probe_of_the_last_level_reads_what_one_of_all_levels_has_made(
    pictures: Dataset, monkeypatch: pytest.MonkeyPatch, truncate: int
) -> None:
    live, _ = train(pictures, config("off", fraction=1.0, truncate=truncate))
    train(pictures, config("fp32", fraction=1.0, head_features="all"))
    made = feature_keys()
    monkeypatch.setattr(FixedViewImages, "images", None)
    assert train(pictures, config("fp32", fraction=1.0, truncate=truncate))[0] == live
    assert len(feature_keys()) == len(made) + 2


def test_what_is_exact_is_never_made_of_halves(pictures: Dataset) -> None:
    live, _ = train(pictures, config("off", fraction=0.8))
    train(pictures, config("fp16", fraction=0.2))
    assert train(pictures, config("fp32", fraction=0.8))[0] == live


# --- files ---

LAYOUTS = {
    "row": torch.randn(16, 5),
    "contiguous": torch.randn(16, 3, 4, 4),
    "channels_last": torch.randn(16, 3, 4, 4).contiguous(memory_format=torch.channels_last),
    "one_place": torch.randn(16, 3, 1, 1),
    "one_place_channels_last": torch.randn(16, 3, 1, 1).to(memory_format=torch.channels_last),
    "tokens": torch.randn(16, 7, 3),
    "transposed_tokens": torch.randn(16, 3, 7).transpose(1, 2),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_read_back_lies_in_memory_as_what_was_computed(tmp_path: Path, layout: str) -> None:
    x = LAYOUTS[layout]
    write_features(tmp_path, lambda: iter([(x,), (x[:5] + 1,)]), 21, is_fp16=False)
    found = open_features(tmp_path, 0).rows(np.arange(16)).unpacked
    assert torch.equal(found, x)
    assert found.stride() == x.stride()
    assert torch.equal(open_features(tmp_path, 0).rows(np.array([20, 3])).unpacked, torch.stack([x[4] + 1, x[3]]))


def test_what_is_too_large_for_half_precision_is_kept_in_float32(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    batches = [(torch.full((16, 2), 3.0),), (torch.full((4, 2), 70_000.0),)]
    with caplog.at_level(logging.INFO):
        write_features(tmp_path, lambda: iter(batches), 20, is_fp16=True)
    assert np.load(tmp_path / "0.npy").dtype == np.float32
    assert open_features(tmp_path, 0).rows(np.array([0, 19])).unpacked.tolist() == [[3.0, 3.0], [70_000.0, 70_000.0]]
    assert "kept in float32" in caplog.text


def test_a_large_array_is_mapped_and_read_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(feature_files, "SMALL_BYTES", 10)
    x = torch.randn(16, 3, 4, 4)
    write_features(tmp_path, lambda: iter([(x,)]), 16, is_fp16=True)
    found = open_features(tmp_path, 0).rows(np.array([3, 3, 0])).unpacked
    assert (found.dtype, len(feature_files._SMALL), len(recwarn)) == (torch.float32, 0, 0)
    assert torch.equal(found, x[[3, 3, 0]].half().float())
    found += 1  # what was read is the reader's own


# --- trouble ---


def as_program(folder: Path, *hows: str) -> list[subprocess.CompletedProcess[str]]:
    """Run small trials at the same time, each in a process of its own."""
    command = [sys.executable, "-m", "tests.models.cached_trial_process", str(folder)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    running = [subprocess.Popen([*command, how], **pipes) for how in hows]
    return [
        subprocess.CompletedProcess(process.args, process.wait(), *process.communicate(timeout=120))
        for process in running
    ]


def test_of_two_processes_one_makes_an_entry_and_the_other_waits(pictures: Dataset) -> None:
    ended = as_program(pictures.root, "slow", "slow")
    assert [process.returncode for process in ended] == [0, 0]
    assert sum(process.stderr.count("made\n") for process in ended) == len(feature_keys()) == 2
    live, _ = train(pictures, config("off"))
    assert [json.loads(process.stdout) for process in ended] == [live, live]


def test_what_a_killed_process_was_making_is_made_anew(pictures: Dataset) -> None:
    (killed,) = as_program(pictures.root, "killed")
    assert killed.returncode == -9
    assert [path.name for path in (ContentCache().root / "features").rglob(".*.partial")] != []
    assert train(pictures, config())[0] == train(pictures, config("off"))[0]
    assert [path.name for path in (ContentCache().root / "features").rglob(".*.partial")] == []


def test_a_flipped_byte_is_found_and_the_entry_made_anew(pictures: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = train(pictures, config())
    for key in feature_keys():
        file = ContentCache().root / key / "0.npy"
        state, content = file.stat(), bytearray(file.read_bytes())
        content[-3] ^= 0x40
        file.write_bytes(content)
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert len(ContentCache().verify()) == 2
    forget(monkeypatch)
    assert train(pictures, config())[0] == first
    assert ContentCache().verify() == []


def test_on_a_full_disk_a_trial_goes_on_with_the_same_numbers(
    pictures: Dataset, small_disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    live, _ = train(pictures, config("off", fraction=0.2))
    monkeypatch.setenv("FREEZELINE_HOME", str(small_disk))
    told, facts = train(pictures, config("fp32", fraction=0.2))
    assert told == live
    assert facts["features"] == "uncached (disk full)"
    assert "the disk is full" in caplog.text
    assert shutil.disk_usage(small_disk).free > 40_000
    assert list(small_disk.rglob(".*.partial")) == []


def test_a_disk_that_becomes_full_while_an_entry_is_written_leaves_nothing(
    pictures: Dataset, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, _ = train(pictures, config("off", fraction=0.2))
    monkeypatch.setenv("FREEZELINE_HOME", str(small_disk))
    monkeypatch.setattr("models.features.feature_cache.RESERVED_BYTES", -(10**9))  # begin, though it won't fit
    pixel_cache(pictures, config().preprocessing)
    (small_disk / "other").write_bytes(bytes(shutil.disk_usage(small_disk).free - 40_000))
    told, facts = train(pictures, config("fp32", fraction=0.2))
    assert (told, facts["features"]) == (live, "uncached (disk full)")
    assert list(small_disk.rglob(".*.partial")) == []


def test_an_error_of_another_kind_is_not_taken_for_a_full_disk(
    pictures: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "not yours")

    monkeypatch.setattr("models.features.feature_cache.write", fail)
    with pytest.raises(PermissionError, match="not yours"):
        train(pictures, config())
