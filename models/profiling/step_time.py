"""How long a training step takes by how much of the network is frozen: measured once on a machine, then read.

A step's time follows from the network, the image size and the frozen share, not from the weights or the pictures. It is
processor time of one thread, so that a busy machine changes it little.
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
from models.device import disable_malloc_trim
from models.profiling.hardware import measurement_key
from models.trial_config import NetworkConfig

VERSION = 1  # of what is measured
FREEZE_FRACTIONS = (0.0, 0.5, 1.0)  # shares of the blocks that are frozen
BATCH_SIZE = 8  # in a step: large networks are measured within seconds
NUM_STEPS = 2  # that count, after one that doesn't
NUM_CLASSES = 2  # the head's part of a step is none
FILE = "seconds.json"


def step_times(backbone: str, image_size: int, store: ContentCache | None = None) -> dict[float, float]:
    """Return the seconds that a step of ``PICTURES`` pictures takes, for each of ``FREEZE_FRACTIONS``; a few seconds' work.

    At 1.0 everything is frozen and computed in each step; kept features take next to nothing.

    Raises:
        BackboneError: see ``models.classifier.build_classifier``.
    """
    key = measurement_key("steps", VERSION, backbone, image_size, FREEZE_FRACTIONS)
    entry = (store or ContentCache()).get_or_create(key, lambda folder: _measure(backbone, image_size, folder))
    return {float(fraction): seconds for fraction, seconds in json.loads((entry / FILE).read_text()).items()}


def _measure(backbone: str, image_size: int, folder: Path) -> None:
    disable_malloc_trim()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = {fraction: _step_s(backbone, image_size, fraction) for fraction in FREEZE_FRACTIONS}
    finally:
        torch.set_num_threads(threads)
    (folder / FILE).write_text(json.dumps(found))


def _step_s(backbone: str, image_size: int, fraction: float) -> float:
    config = NetworkConfig(backbone=backbone, weights="none", freeze_fraction=fraction)
    classifier = build_classifier(config, NUM_CLASSES, image_size, seed=0).train()
    x = torch.zeros(BATCH_SIZE, 3, image_size, image_size).contiguous(memory_format=torch.channels_last)
    y = torch.arange(BATCH_SIZE) % NUM_CLASSES
    return min(_timed(classifier, x, y) for _ in range(1 + NUM_STEPS))


def _timed(classifier: Classifier, x: torch.Tensor, y: torch.Tensor) -> float:
    began = time.thread_time()
    with FastDepthwiseGrad():
        loss = functional.cross_entropy(classifier(x), y)
    loss.backward()  # type: ignore[no-untyped-call]
    return time.thread_time() - began
