"""The memory of a GPU that training takes, measured with one step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from models.classifier import build_classifier
from models.device import autocast
from models.training.train_step import TrainStep
from models.trial_config import TrialConfig


class StepMemory(NamedTuple):
    """The name of a GPU, its memory, and the most that a training step has reserved, in bytes."""

    device: str
    total_bytes: int
    peak_bytes: int


def measure_step_memory(configs: Sequence[TrialConfig], num_classes: int) -> StepMemory | None:
    """Return the highest memory of a step of any configuration on the first GPU; None without one.

    A configuration that does not fit counts as all of the memory.
    """
    if not torch.cuda.is_available():
        return None
    total_bytes = torch.cuda.get_device_properties(0).total_memory
    peak_bytes = 0
    for config in configs:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        try:
            _run_step(config, num_classes)
            peak_bytes = max(peak_bytes, torch.cuda.max_memory_reserved())
        except torch.OutOfMemoryError:
            peak_bytes = total_bytes
    return StepMemory(torch.cuda.get_device_name(0), total_bytes, peak_bytes)


def _run_step(config: TrialConfig, num_classes: int) -> None:
    size, device = config.preprocessing.image_size, torch.device("cuda")
    network = config.network.model_copy(update={"weights": "none"})  # of the same size
    classifier = build_classifier(network, num_classes, size, config.seed).to(device).train()
    images = torch.zeros(config.batches.batch_size, 3, size, size, device=device)
    labels = torch.zeros(config.batches.batch_size, dtype=torch.int64, device=device)
    step = TrainStep(classifier, config.fit, steps_per_epoch=1)
    with autocast(device, config.fit.trained_precision):
        logits = classifier(images.contiguous(memory_format=torch.channels_last)).float()
    step(logits, labels)
