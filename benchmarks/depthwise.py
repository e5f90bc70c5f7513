"""What our weight gradient of depthwise convolutions is worth: ``python -m benchmarks.depthwise``.

A training step (forward and backward, 32 pictures, one thread) of EfficientNet-Lite0, with torch's own gradient and
with ours, by image size and frozen share; milliseconds of processor time, the least of five.
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

PICTURES = 32
CLASSES = 6


def step_ms(classifier: Classifier, size: int, mode: Callable[[], AbstractContextManager[object]]) -> float:
    """Return the milliseconds of one step."""
    x = torch.randn(PICTURES, 3, size, size).to(memory_format=torch.channels_last)
    y = torch.arange(PICTURES) % CLASSES
    times = []
    for _ in range(6):
        began = time.process_time()
        with mode():
            logits = classifier(x)
        functional.cross_entropy(logits, y).backward()
        times.append(time.process_time() - began)
    return 1000 * min(times[1:])


def main() -> None:
    """Print a row for each size and frozen share."""
    torch.set_num_threads(1)
    print("px frozen torch_ms ours_ms ratio")
    for size in (64, 96, 128, 224):
        for frozen in (0.0, 0.5, 0.75):
            config = NetworkConfig(weights="none", freeze_fraction=frozen)
            classifier = build_classifier(config, CLASSES, size, 0).train()
            theirs, ours = (step_ms(classifier, size, mode) for mode in (contextlib.nullcontext, FastDepthwiseGrad))
            print(f"{size} {frozen} {theirs:.0f} {ours:.0f} {theirs / ours:.2f}", flush=True)


if __name__ == "__main__":
    main()
