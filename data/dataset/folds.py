"""Cross-validation folds of images: stratified by class, and no group of linked images is divided.

Shapes: n = number of images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from data.dataset.dataset import Dataset, Sample

Folds = npt.NDArray[np.int64]

MAX_FOLDS = 5  # Kohavi, "A Study of Cross-Validation and Bootstrap ...", IJCAI 1995: 5 to 10 are as good as more
ALWAYS_TRAINING = -1  # instead of a fold: the image is never held out
FOLD_SEED = 0  # fixed, so that all trials of a data set use the same folds


def development_folds(dataset: Dataset) -> Folds | None:
    """Return the folds of the training images, followed by the validation images; None if there can be none."""
    return folds_of(dataset.development)


def folds_of(samples: Sequence[Sample]) -> Folds | None:
    """Return the folds of samples; None if there can be none."""
    labels = np.array([sample.label for sample in samples], dtype=np.int64)
    return stratified_group_folds(labels, [sample.group or sample.content_hash for sample in samples])


def never_held_out(dataset: Dataset) -> list[str]:
    """Return the classes that are in the training part of every fold; empty if there are no folds."""
    folds = development_folds(dataset)
    if folds is None:
        return []
    pairs = zip(dataset.development, folds, strict=True)
    held_out = {sample.label for sample, fold in pairs if fold != ALWAYS_TRAINING}
    return [name for label, name in enumerate(dataset.classes) if label not in held_out]


def count_folds(dataset: Dataset) -> int:
    """Return the number of ``development_folds``; 0 if there can be none."""
    folds = development_folds(dataset)
    return 0 if folds is None else int(folds.max()) + 1


def stratified_group_folds(labels: npt.NDArray[np.int64], groups: Sequence[str]) -> Folds | None:
    """Return the fold of each image [n], or ``ALWAYS_TRAINING``; None if no two folds can be formed.

    There are as many folds as the rarest class has groups, at most ``MAX_FOLDS``. A class with a single group, and a
    class whose groups would all be in one fold, is never held out, so that each class is in the training part of
    every fold. Groups count for the class of their first image.
    """
    _, first_rows, group_ids = np.unique(np.asarray(groups), return_index=True, return_inverse=True)
    group_labels = labels[first_rows]
    num_groups = np.bincount(group_labels)
    is_divisible = num_groups[group_labels] > 1
    if not is_divisible.any():
        return None
    num_folds = min(MAX_FOLDS, int(num_groups[num_groups > 1].min()))
    group_folds = np.full(len(group_labels), ALWAYS_TRAINING, dtype=np.int64)
    rng, next_fold = np.random.default_rng(FOLD_SEED), 0
    for label in np.unique(group_labels[is_divisible]):
        of_class = rng.permutation(np.flatnonzero(group_labels == label))
        group_folds[of_class] = (next_fold + np.arange(len(of_class))) % num_folds
        next_fold += len(of_class)  # the next class continues, so that the folds have equal sizes
    for label in np.unique(labels):
        of_class = np.unique(group_ids[labels == label])
        if len(np.unique(group_folds[of_class])) == 1:
            group_folds[of_class] = ALWAYS_TRAINING
    folds = group_folds[group_ids]
    return folds if (folds != ALWAYS_TRAINING).any() else None
