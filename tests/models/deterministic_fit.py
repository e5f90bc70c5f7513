"""A small training whose metrics are compared bit by bit; as a program it prints them for the given seed."""

from __future__ import annotations

import json
import sys

import torch

from data.loading.batch_config import BatchConfig
from data.loading.batch_loader import BatchLoader
from data.loading.views import OnTheFlyImages
from data.preprocessing import Preprocessing
from models.classifier import build_classifier
from models.training.loop import fit
from models.trial_config import FitConfig, NetworkConfig
from tests.models.conftest import CLASSES, NETWORK, SIZE, colored_pixels

TIMING_METRICS = {"epoch_s", "images_per_s"}
HexMetrics = list[dict[str, str]]


def train(seed: int) -> HexMetrics:
    """Return the metrics of each epoch as hexadecimal floats, trained with augmentation and dropout."""

    def make_batches(count: int, training: bool) -> BatchLoader:
        config = BatchConfig(batch_size=8, augmentation="medium")
        pixels, labels = colored_pixels(count, seed=count)
        source = OnTheFlyImages(pixels, Preprocessing(SIZE), seed, config.augmentation if training else "none")
        return BatchLoader(source, labels, config, seed, training, len(CLASSES))

    network = NetworkConfig(backbone=NETWORK, weights="none", dropout=0.3)
    classifier = build_classifier(network, len(CLASSES), SIZE, seed)
    history = fit(classifier, make_batches(24, True), make_batches(16, False), FitConfig(max_epochs=2))
    return [
        {name: value.hex() for name, value in epoch.metrics().items() if name not in TIMING_METRICS}
        for epoch in history
    ]


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(train(int(sys.argv[1]))))
