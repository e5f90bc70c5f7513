"""One small trial on kept features, told to the last bit; as a program it may be slow, or be killed while it keeps."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from data.dataset.dataset import Dataset
from data.load_dataset import load_dataset
from data.loading.batch_config import BatchConfig
from data.loading.batch_loader import BatchLoader
from data.loading.pixel_cache import pixel_cache
from data.preprocessing import Preprocessing
from data.sources.base import SplitName
from models.classifier import build_classifier
from models.features import feature_cache
from models.features.feature_cache import TrialFeatures
from models.training.loop import fit
from models.trial_config import FeaturesConfig, FitConfig, NetworkConfig, TrialConfig
from tests.models.conftest import NETWORK, SIZE

Told = list[dict[str, str]]
CLOCKED = {"epoch_s", "images_per_s"}


def config(
    feature_cache: str = "fp32", cached_augmentations: int = 2, fraction: float = 0.5, **changes: Any
) -> TrialConfig:
    """Return a trial of two epochs on the test network; ``changes`` are of any of its parts."""

    def given(kind: Any, **fields: Any) -> Any:
        return kind(**fields | {name: value for name, value in changes.items() if name in kind.model_fields})

    return TrialConfig(
        seed=changes.get("seed", 3),
        preprocessing=changes.get("preprocessing", Preprocessing(SIZE)),
        batches=given(BatchConfig, batch_size=8, augmentation="none"),
        network=given(NetworkConfig, backbone=NETWORK, weights="none", freeze_fraction=fraction),
        fit=given(FitConfig, max_epochs=2),
        features=FeaturesConfig(feature_cache=feature_cache, cached_augmentations=cached_augmentations),
    )


def train(dataset: Dataset, trial: TrialConfig) -> tuple[Told, dict[str, str | int | float]]:
    """Return each epoch's metrics as hexadecimal numbers, and what is known of the features at the end."""
    pixels = pixel_cache(dataset, trial.preprocessing)
    classifier = build_classifier(trial.network, len(dataset.classes), trial.preprocessing.image_size, trial.seed)
    features = TrialFeatures(classifier, trial, dataset, pixels)

    def batches(split: SplitName) -> BatchLoader:
        return BatchLoader(
            *pixels.split(split),
            trial.preprocessing,
            trial.batches,
            trial.seed,
            training=split == "train",
            num_classes=len(dataset.classes),
            source=features.loader(split),
        )

    with contextlib.closing(features):
        result = fit(classifier, batches("train"), batches("val"), trial.fit, seed=trial.seed)
        facts = features.runtime_info()
    return [{n: v.hex() for n, v in epoch.metrics().items() if n not in CLOCKED} for epoch in result.history], facts


def _spoilt_write(how: str) -> Any:
    """Return ``write_features`` of an entry that says that it was called, and is slow, or kills the process half-way."""
    write = feature_cache.write_features

    def spoilt(folder: Path, compute: Any, count: int, half: bool) -> None:
        def batches() -> Iterator[tuple[torch.Tensor, ...]]:
            for number, batch in enumerate(compute()):
                if how == "killed" and number == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(0.5 if how == "slow" else 0)
                yield batch

        print("made", file=sys.stderr)
        write(folder, batches, count, half)

    return spoilt


def main(folder: str, how: str) -> None:
    torch.set_num_threads(1)
    feature_cache.write_features = _spoilt_write(how)
    print(json.dumps(train(load_dataset(folder), config())[0]))


if __name__ == "__main__":
    main(*sys.argv[1:])
