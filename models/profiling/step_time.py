"""The time of a training step by frozen fraction of the network, measured once per machine and then cached.

The time depends on the network, the image size and the frozen fraction, not on the weights or the images. It is the
CPU time of one thread, so that other load on the machine affects it little.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from torch.nn import functional

from data.cache.content_cache import ContentCache
from models.classifier import Classifier, build_classifier
from models.depthwise_conv import FastDepthwiseGrad
from models.device import disable_malloc_trim, one_thread
from models.profiling.hardware import measurement_key
from models.trial_config import NetworkConfig

VERSION = 1  # of the measurement method
FREEZE_FRACTIONS = (0.0, 0.5, 1.0)
BATCH_SIZE = 8  # small enough that large networks are measured within seconds
NUM_STEPS = 2  # after one warm-up step
NUM_CLASSES = 2  # the head's share of the time is negligible
FILE = "seconds.json"


def step_times(backbone: str, image_size: int) -> dict[float, float]:
    """Return the seconds per training step of ``BATCH_SIZE`` images, by freeze fraction; takes a few seconds.

    At freeze fraction 1.0 the frozen network is computed in every step, which cached features make unnecessary.

    Raises:
        BackboneError: see ``models.classifier.build_classifier``.
    """
    key = measurement_key("steps", VERSION, backbone, image_size, FREEZE_FRACTIONS)
    entry = ContentCache().get_or_create(key, lambda folder: _measure(backbone, image_size, folder))
    return {float(fraction): seconds for fraction, seconds in json.loads((entry / FILE).read_text()).items()}


def _measure(backbone: str, image_size: int, folder: Path) -> None:
    disable_malloc_trim()
    with one_thread():
        seconds = {fraction: _step_s(backbone, image_size, fraction) for fraction in FREEZE_FRACTIONS}
    (folder / FILE).write_text(json.dumps(seconds))


def _step_s(backbone: str, image_size: int, freeze_fraction: float) -> float:
    config = NetworkConfig(backbone=backbone, weights="none", freeze_fraction=freeze_fraction)
    classifier = build_classifier(config, NUM_CLASSES, image_size, seed=0).train()
    x = torch.zeros(BATCH_SIZE, 3, image_size, image_size).contiguous(memory_format=torch.channels_last)
    y = torch.arange(BATCH_SIZE) % NUM_CLASSES
    return min(_time_step(classifier, x, y) for _ in range(1 + NUM_STEPS))


def _time_step(classifier: Classifier, x: torch.Tensor, y: torch.Tensor) -> float:
    started = time.thread_time()
    with FastDepthwiseGrad():
        loss = functional.cross_entropy(classifier(x), y)
    loss.backward()  # type: ignore[no-untyped-call]
    return time.thread_time() - started
