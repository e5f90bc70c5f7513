"""One small training, told to the last bit; as a program it prints that of the seed it is given."""

from __future__ import annotations

import json
import sys

import torch

from data.loading.batch_config import BatchConfig
from data.loading.batch_loader import BatchLoader
from data.preprocessing import Preprocessing
from models.classifier import build_classifier
from models.training.loop import fit
from models.trial_config import FitConfig, NetworkConfig
from tests.models.conftest import CLASSES, NETWORK, SIZE, colored_pixels

CLOCKED = {"epoch_s", "images_per_s"}
Told = list[dict[str, str]]


def train(seed: int) -> Told:
    """Return each epoch's metrics as hexadecimal numbers: augmentation, dropout and all that is drawn at random."""

    def batches(count: int, training: bool) -> BatchLoader:
        config = BatchConfig(batch_size=8, augmentation="medium")
        return BatchLoader(*colored_pixels(count, seed=count), Preprocessing(SIZE), config, seed, training)

    network = NetworkConfig(backbone=NETWORK, weights="none", dropout=0.3)
    classifier = build_classifier(network, len(CLASSES), SIZE, seed)
    result = fit(classifier, batches(24, True), batches(16, False), FitConfig(max_epochs=2), seed=seed)
    return [{n: v.hex() for n, v in epoch.metrics().items() if n not in CLOCKED} for epoch in result.history]


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(train(int(sys.argv[1]))))
