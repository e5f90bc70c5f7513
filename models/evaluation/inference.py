"""Running a classifier over batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from models.classifier import Classifier
from models.depthwise_conv import FastDepthwiseGrad
from models.device import autocast, disable_malloc_trim
from models.evaluation.metrics import Labels, Probabilities


def run_epoch(
    classifier: Classifier,
    batches: Iterable[tuple[Tensor, Tensor]],
    train_step: Callable[[Tensor, Tensor], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the float64 logits [n, k] and labels [n] of batches ([b, 3, s, s], [b]), on the CPU.

    With ``train_step`` the classifier is put into training mode, and ``train_step(logits, labels)`` is called for every
    batch. Without it, the classifier is put into eval mode, and gradients are off. The mode is not restored.
    """
    disable_malloc_trim()
    classifier.train(train_step is not None)
    device = classifier.device
    outputs = []
    with torch.set_grad_enabled(train_step is not None), FastDepthwiseGrad():
        for x, y in batches:
            labels = y.to(device, non_blocking=True)  # from pinned memory, so the copy overlaps with computation
            with autocast(device, classifier.trained_precision):
                logits = classifier(x.to(device, non_blocking=True)).float()
            if train_step:
                train_step(logits, labels)
            outputs.append((logits.detach(), labels))
    return torch.cat([logits for logits, _ in outputs]).double().cpu(), torch.cat([y for _, y in outputs]).cpu()


def predict(classifier: Classifier, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Probabilities, Labels]:
    """Return the probabilities [n, k] and labels [n] of batches ([b, 3, s, s], [b]), in eval mode.

    The softmax is computed in float64, so that a loss based on the probabilities has no rounding problems.
    """
    logits, labels = run_epoch(classifier, batches)
    return logits.softmax(dim=1).numpy(), labels.numpy().astype(np.int64)
