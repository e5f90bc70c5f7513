"""Balancing of classes of different size, by loss weights, sampling or oversampling.

Shapes: n = number of images, k = number of classes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from data.loading.batch_config import Balance

Indices = npt.NDArray[np.intp]


def class_weights(labels: npt.NDArray[np.int64], num_classes: int) -> npt.NDArray[np.float32]:
    """Return the class weights of the loss, float32 [k]: equal total weight per class, mean 1 over the images.

    A class without images has weight 0.
    """
    counts = np.bincount(labels, minlength=num_classes)
    present = np.count_nonzero(counts)
    return np.where(counts > 0, len(labels) / (present * np.maximum(counts, 1)), 0).astype(np.float32)


def epoch_indices(labels: npt.NDArray[np.int64], balance: Balance, rng: np.random.Generator) -> tuple[Indices, Indices]:
    """Return the image indices of an epoch in random order, and how often each index occurs before its position.

    ``none`` and ``weights`` use every image once. ``sampler`` draws n images with replacement, all classes with equal
    probability. ``oversample`` uses every image, and repeats images of smaller classes until all classes have the
    size of the largest.
    """
    if balance == "sampler":
        weights = class_weights(labels, int(labels.max()) + 1)[labels].astype(np.float64)
        indices = rng.choice(len(labels), len(labels), p=weights / weights.sum())
    elif balance == "oversample":
        indices = rng.permutation(_oversampled(labels, rng))
    else:
        indices = rng.permutation(len(labels))
    return indices, _repeat_count(indices)


def epoch_size(labels: npt.NDArray[np.int64], balance: Balance) -> int:
    """Return the number of images per epoch, including repeats."""
    counts = np.bincount(labels)
    return int(counts.max() * np.count_nonzero(counts)) if balance == "oversample" else len(labels)


def _oversampled(labels: npt.NDArray[np.int64], rng: np.random.Generator) -> Indices:
    """Return all indices, with those of smaller classes repeated: full repetitions, then a random subset."""
    counts = np.bincount(labels)
    chunks = []
    for label in np.flatnonzero(counts):
        repetitions, rest = divmod(int(counts.max()), int(counts[label]))
        indices = np.flatnonzero(labels == label)
        chunks += [np.tile(indices, repetitions), rng.permutation(indices)[:rest]]
    return np.concatenate(chunks)


def _repeat_count(indices: Indices) -> Indices:
    """Return for each position how often its index occurs before it."""
    order = np.argsort(indices, kind="stable")
    ordered = indices[order]
    starts = np.searchsorted(ordered, ordered)
    counts = np.empty_like(indices)
    counts[order] = np.arange(len(indices)) - starts
    return counts
