"""Measure what the fast weight gradient of depthwise convolutions gains: ``python -m benchmarks.depthwise``.

Whole training steps (forward, backward, optimizer; 32 images, one thread) of EfficientNet-Lite0 alternate between
torch's gradient and ``FastDepthwiseGrad`` in one process. Prints torch's CPU time divided by the fast one's, by
image size and frozen share: the median and the quartiles of the pairs.
"""

from __future__ import annotations

import contextlib
import statistics
import time

import torch

from models.classifier import Classifier, build_classifier
from models.depthwise_conv import FastDepthwiseGrad
from models.device import disable_malloc_trim
from models.training.train_step import TrainStep
from models.trial_config import FitConfig, NetworkConfig

BATCH_SIZE = 32
CLASSES = 6
PAIRS = 21
SIZES = (64, 96, 128)
CASES = {"half frozen, cached features": (0.5, True), "half frozen": (0.5, False), "fully trained": (0.0, False)}
MODES = (contextlib.nullcontext, FastDepthwiseGrad)


def ratios(classifier: Classifier, x: torch.Tensor) -> list[float]:
    """Return the ratio of each pair of steps; the order within the pairs alternates."""
    train_step = TrainStep(classifier, FitConfig(lr=1e-5), steps_per_epoch=1000)
    y = torch.arange(BATCH_SIZE) % CLASSES
    result = []
    for pair in range(PAIRS + 1):
        times = {}
        for mode in MODES if pair % 2 else MODES[::-1]:
            start = time.process_time()
            with mode():
                train_step(classifier(x), y)
            times[mode] = time.process_time() - start
        result.append(times[contextlib.nullcontext] / times[FastDepthwiseGrad])
    return result[1:]  # the first pair warms up


def main() -> None:
    """Print a row for each size and case."""
    torch.set_num_threads(1)
    disable_malloc_trim()
    for size in SIZES:
        for name, (freeze_fraction, is_cached) in CASES.items():
            classifier = build_classifier(NetworkConfig(freeze_fraction=freeze_fraction), CLASSES, size, seed=0)
            x = torch.randn(BATCH_SIZE, 3, size, size).to(memory_format=torch.channels_last)
            if is_cached:
                with torch.no_grad():
                    x = classifier.prefix(x)
                classifier.expects_features = True
            low, median, high = statistics.quantiles(ratios(classifier, x), n=4)
            print(f"{size} px  {name:28}  {median:.2f} ({low:.2f} to {high:.2f})", flush=True)


if __name__ == "__main__":
    main()
