"""What is done about classes of different size.

Shapes: n pictures, k classes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Balance = Literal["none", "weights", "sampler", "oversample"]
Indices = npt.NDArray[np.intp]


def class_weights(labels: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.float32]:
    """Return float32 [k] to weigh the loss with: the same total for every class, 1 on average over the pictures.

    A class without a picture has weight 0.
    """
    counts = np.bincount(labels, minlength=classes)
    present = np.count_nonzero(counts)
    return np.where(counts > 0, len(labels) / (present * np.maximum(counts, 1)), 0).astype(np.float32)


def epoch_indices(
    labels: npt.NDArray[np.int64], balance: Balance, random: np.random.Generator
) -> tuple[Indices, Indices]:
    """Return the rows that an epoch shows, in a random order, and how often each was shown before in it.

    ``none`` and ``weights`` show every picture once. ``sampler`` draws as many pictures as there are, with
    replacement, every class as likely. ``oversample`` shows every picture, and those of smaller classes again until
    all classes are as large as the largest.
    """
    if balance == "sampler":
        weights = class_weights(labels, int(labels.max()) + 1)[labels].astype(np.float64)
        rows = random.choice(len(labels), len(labels), p=weights / weights.sum())
    elif balance == "oversample":
        rows = random.permutation(_oversampled(labels, random))
    else:
        rows = random.permutation(len(labels))
    return rows, _repeat_count(rows)


def epoch_size(labels: npt.NDArray[np.int64], balance: Balance) -> int:
    """Return how many pictures an epoch shows."""
    counts = np.bincount(labels)
    return int(counts.max() * np.count_nonzero(counts)) if balance == "oversample" else len(labels)


def _oversampled(labels: npt.NDArray[np.int64], random: np.random.Generator) -> Indices:
    """Return all rows, and those of smaller classes again: whole rounds, then some of them."""
    counts = np.bincount(labels)
    found = []
    for label in np.flatnonzero(counts):
        rounds, rest = divmod(int(counts.max()), int(counts[label]))
        rows = np.flatnonzero(labels == label)
        found += [np.tile(rows, rounds), random.permutation(rows)[:rest]]
    return np.concatenate(found)


def _repeat_count(indices: Indices) -> Indices:
    """Return for each place how often its row stands before it."""
    order = np.argsort(indices, kind="stable")
    ordered = indices[order]
    starts = np.searchsorted(ordered, ordered)
    found = np.empty_like(indices)
    found[order] = np.arange(len(indices)) - starts
    return found
