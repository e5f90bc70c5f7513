"""The batches of a trial's splits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from data.loading.batch_config import BatchConfig
from data.loading.pixel_cache import PixelCache
from data.preprocessing import normalize
from data.sources.base import SplitName
from models.training.trial_io import split_batches
from models.trial_config import TrialConfig
from tests.models.conftest import CLASSES, colored_pixels


def test_only_training_batches_are_augmented_and_mixed(tmp_path: Path, trial_config: TrialConfig) -> None:
    pixels, labels = colored_pixels(12)
    np.save(tmp_path / "pixels.npy", pixels)
    np.save(tmp_path / "labels.npy", labels)
    (tmp_path / "splits.json").write_text(json.dumps({"train": [0, 4], "val": [4, 8], "test": [8, 12]}))
    config = trial_config.model_copy(update={"batches": BatchConfig(augmentation="light", mix="mixup")})

    def first_batch(split: SplitName) -> tuple[torch.Tensor, torch.Tensor]:
        return next(split_batches(PixelCache(tmp_path), config, split, len(CLASSES)).epoch(1))

    for split, rows in (("val", slice(4, 8)), ("test", slice(8, 12))):
        x, y = first_batch(split)
        np.testing.assert_array_equal(x.numpy(), normalize(pixels[rows], config.preprocessing))
        np.testing.assert_array_equal(y, labels[rows])
    x, y = first_batch("train")
    assert y.shape == (4, len(CLASSES))
    normalized = {image.tobytes() for image in normalize(pixels[:4], config.preprocessing)}
    assert {image.numpy().tobytes() for image in x} != normalized
