"""Subsets of a data set for the benchmarks."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from data.dataset.dataset import Dataset
from models.evaluation.metrics import Labels

MAX_TEST_IMAGES = 800


def subset(labels: Labels, count: int, seed: int) -> tuple[Labels, Labels]:
    """Return the rows of a stratified subset of about ``count`` images, at least five per class, and all other rows."""
    order = np.random.default_rng(seed).permutation(len(labels))
    share = count / len(labels)
    chosen = [order[labels[order] == label] for label in np.unique(labels)]
    rows = np.sort(np.concatenate([rows[: max(5, round(share * len(rows)))] for rows in chosen]))
    return rows, np.setdiff1d(order, rows)


def copy_subset(dataset: Dataset, count: int, seed: int, folder: Path) -> None:
    """Copy a subset of a data set into ``folder``, with splits ``train`` and ``test``."""
    labels = np.array([sample.label for sample in dataset.samples])
    train, others = subset(labels, count, seed)
    test = others if len(others) <= MAX_TEST_IMAGES else others[subset(labels[others], MAX_TEST_IMAGES, seed)[0]]
    for split, rows in (("train", train), ("test", test)):
        for row in rows:
            sample = dataset.samples[row]
            target = folder / split / dataset.classes[sample.label] / f"{row}{Path(sample.path).suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(dataset.root / sample.path, target)
