"""Running a classifier over batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from models.classifier import Classifier
from models.depthwise_conv import FastDepthwiseGrad
from models.device import autocast, disable_malloc_trim, to_device
from models.evaluation.metrics import Labels, Probabilities


def run_epoch(
    classifier: Classifier,
    batches: Iterable[tuple[Tensor, Tensor]],
    train_step: Callable[[Tensor, Tensor], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return logits [n, k] float64 and labels [n] of batches ([b, 3, s, s], [b]), on the CPU.

    With ``learn`` the classifier is in training mode and ``learn(logits, labels)`` is called for every batch;
    without, it is in eval mode and keeps no graph. It is left in that mode.
    """
    disable_malloc_trim()
    classifier.train(train_step is not None)
    device = classifier.device
    found = []
    with torch.set_grad_enabled(train_step is not None), FastDepthwiseGrad():
        for x, y in batches:
            labels = to_device(y, device)
            with autocast(device):
                logits = classifier(to_device(x, device)).float()
            if train_step:
                train_step(logits, labels)
            found.append((logits.detach(), labels))
    return torch.cat([x for x, _ in found]).double().cpu(), torch.cat([y for _, y in found]).cpu()


def predict(classifier: Classifier, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Probabilities, Labels]:
    """Return probabilities [n, k] and labels [n] of batches ([b, 3, s, s], [b]); the classifier is in eval mode then.

    The softmax is taken in float64, so that a loss made of it doesn't run into rounding.
    """
    logits, labels = run_epoch(classifier, batches)
    return logits.softmax(dim=1).numpy(), labels.numpy().astype(np.int64)
