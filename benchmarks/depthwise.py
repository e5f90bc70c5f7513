"""Measure the weight gradient of depthwise convolutions: ``python -m benchmarks.depthwise``.

A training step (forward and backward, 32 images, one thread) of EfficientNet-Lite0, with torch's own gradient and with
``FastDepthwiseGrad``, by image size and frozen share; CPU milliseconds, the minimum of five.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch.nn import functional

from models.classifier import Classifier, build_classifier
from models.depthwise_conv import FastDepthwiseGrad
from models.trial_config import NetworkConfig

BATCH_SIZE = 32
CLASSES = 6


def step_ms(classifier: Classifier, size: int, mode: Callable[[], AbstractContextManager[object]]) -> float:
    """Return the milliseconds of one step."""
    x = torch.randn(BATCH_SIZE, 3, size, size).to(memory_format=torch.channels_last)
    y = torch.arange(BATCH_SIZE) % CLASSES
    times = []
    for _ in range(6):
        start = time.process_time()
        with mode():
            logits = classifier(x)
        functional.cross_entropy(logits, y).backward()
        times.append(time.process_time() - start)
    return 1000 * min(times[1:])


def main() -> None:
    """Print a row for each size and frozen share."""
    torch.set_num_threads(1)
    print("px frozen torch_ms fast_ms ratio")
    for size in (64, 96, 128, 224):
        for frozen in (0.0, 0.5, 0.75):
            config = NetworkConfig(weights="none", freeze_fraction=frozen)
            classifier = build_classifier(config, CLASSES, size, 0).train()
            torch_ms, fast_ms = (
                step_ms(classifier, size, mode) for mode in (contextlib.nullcontext, FastDepthwiseGrad)
            )
            print(f"{size} {frozen} {torch_ms:.0f} {fast_ms:.0f} {torch_ms / fast_ms:.2f}", flush=True)


if __name__ == "__main__":
    main()
