"""The batches of a trial's splits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

import data.loading.views
from data.loading.batch_config import BatchConfig
from data.loading.pixel_cache import PixelCache
from data.preprocessing import Pixels, normalize
from data.sources.base import SplitName
from models.training.trial_io import split_batches
from models.trial_config import TrialConfig
from tests.models.conftest import CLASSES, colored_pixels


def _write_pixels(folder: Path, pixels: Pixels, labels: npt.NDArray[np.int64]) -> PixelCache:
    np.save(folder / "pixels.npy", pixels)
    np.save(folder / "labels.npy", labels)
    (folder / "splits.json").write_text(json.dumps({"train": [0, 4], "val": [4, 8], "test": [8, 12]}))
    return PixelCache(folder)


def test_only_training_batches_are_augmented_and_mixed(tmp_path: Path, trial_config: TrialConfig) -> None:
    pixels, labels = colored_pixels(12)
    cache = _write_pixels(tmp_path, pixels, labels)
    config = trial_config.model_copy(update={"batches": BatchConfig(augmentation="light", mix="mixup")})

    def first_batch(split: SplitName) -> tuple[torch.Tensor, torch.Tensor]:
        return next(split_batches(cache, config, split, len(CLASSES)).epoch(1))

    for split, rows in (("val", slice(4, 8)), ("test", slice(8, 12))):
        x, y = first_batch(split)
        np.testing.assert_array_equal(x.numpy(), normalize(pixels[rows], config.preprocessing))
        np.testing.assert_array_equal(y, labels[rows])
    x, y = first_batch("train")
    assert y.shape == (4, len(CLASSES))
    normalized = {image.tobytes() for image in normalize(pixels[:4], config.preprocessing)}
    assert {image.numpy().tobytes() for image in x} != normalized


def test_a_gpu_augments_the_training_images_and_normalizes_all(
    tmp_path: Path, trial_config: TrialConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, gpu = _write_pixels(tmp_path, *colored_pixels(12)), torch.device("cuda")
    config = trial_config.model_copy(update={"batches": BatchConfig(augmentation="medium")})
    created: list[tuple[str, torch.device]] = []
    monkeypatch.setattr(
        data.loading.views, "DeviceAugmentation", lambda name, _, device: created.append((name, device))
    )
    split_batches(cache, config, "train", len(CLASSES), device=gpu)
    split_batches(cache, config, "val", len(CLASSES), device=gpu)
    assert created == [("medium", gpu), ("none", gpu)]
    split_batches(cache, config, "train", len(CLASSES))
    assert len(created) == 2
