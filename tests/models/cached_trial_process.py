"""One small trial on cached features with bit-exact metrics; run as a program, it can write slowly or kill itself."""

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
from models.features import trial_features
from models.features.trial_features import TrialFeatures
from models.training.loop import fit
from models.training.trial_io import split_batches
from models.trial_config import FeaturesConfig, FitConfig, NetworkConfig, TrialConfig
from tests.models.conftest import NETWORK, SIZE

HexMetrics = list[dict[str, str]]  # one dict per epoch
TIMING_METRICS = {"epoch_s", "images_per_s"}


def config(
    feature_cache: str = "fp32", cached_augmentations: int = 2, fraction: float = 0.5, **changes: Any
) -> TrialConfig:
    """Return a trial of two epochs on the test network; ``changes`` are fields of any of its parts."""

    def build(part: Any, **fields: Any) -> Any:
        return part(**fields | {name: value for name, value in changes.items() if name in part.model_fields})

    return TrialConfig(
        seed=changes.get("seed", 3),
        images_per_epoch=changes.get("images_per_epoch"),
        preprocessing=changes.get("preprocessing", Preprocessing(SIZE)),
        batches=build(BatchConfig, batch_size=8, augmentation="none"),
        network=build(NetworkConfig, backbone=NETWORK, weights="none", freeze_fraction=fraction),
        fit=build(FitConfig, max_epochs=2),
        features=build(FeaturesConfig, feature_cache=feature_cache, cached_augmentations=cached_augmentations),
    )


def train(dataset: Dataset, trial: TrialConfig) -> tuple[HexMetrics, dict[str, str | int | float]]:
    """Return each epoch's metrics as hexadecimal floats, and the runtime info of the features at the end."""
    pixels = pixel_cache(dataset, trial.preprocessing)
    classifier = build_classifier(trial.network, len(dataset.classes), trial.preprocessing.image_size, trial.seed)
    classifier.frozen_precision = trial.features.frozen_precision
    features = TrialFeatures(classifier, trial, dataset, pixels, lambda: None)

    def batches(split: SplitName) -> BatchLoader:
        return split_batches(pixels, trial, split, len(dataset.classes), features.loader(split))

    with contextlib.closing(features):
        history = fit(classifier, batches("train"), batches("val"), trial.fit)
        runtime_info = features.runtime_info()
    metrics = [
        {name: value.hex() for name, value in epoch.metrics().items() if name not in TIMING_METRICS}
        for epoch in history
    ]
    return metrics, runtime_info


def _faulty_write(fault: str) -> Any:
    """Return a ``write_features`` that reports its call on stderr, and is slow or kills the process half-way."""
    write_features = trial_features.write_features

    def write(folder: Path, compute: Any, num_images: int, is_fp16: bool) -> None:
        def batches() -> Iterator[torch.Tensor]:
            for number, batch in enumerate(compute()):
                if fault == "killed" and number == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(0.5 if fault == "slow" else 0)
                yield batch

        print("created", file=sys.stderr)
        write_features(folder, batches, num_images, is_fp16)

    return write


def main(folder: str, fault: str) -> None:
    torch.set_num_threads(1)
    trial_features.write_features = _faulty_write(fault)
    print(json.dumps(train(load_dataset(folder), config())[0]))


if __name__ == "__main__":
    main(*sys.argv[1:])
