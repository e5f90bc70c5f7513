"""Cross-validation folds: stratified, groups stay together, and rare classes stay in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.dataset.folds import (
    ALWAYS_TRAINING,
    MAX_FOLDS,
    count_folds,
    stratified_group_folds,
)
from tests.tuning.factories import dataset


def groups_of(labels: np.ndarray) -> list[str]:
    """Return a group of its own for each image."""
    return [f"image {number}" for number in range(len(labels))]


def test_each_fold_has_the_same_share_of_each_class() -> None:
    labels = np.repeat([0, 1, 2], [40, 20, 10])
    folds = stratified_group_folds(labels, groups_of(labels))
    assert folds is not None
    for label, count in ((0, 8), (1, 4), (2, 2)):
        assert np.bincount(folds[labels == label]).tolist() == [count] * MAX_FOLDS


def test_no_group_is_divided() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 30, 200)
    labels = (groups % 2).astype(np.int64)
    folds = stratified_group_folds(labels, groups.astype(str).tolist())
    assert folds is not None
    assert all(len(np.unique(folds[groups == group])) == 1 for group in np.unique(groups))
    assert len(np.unique(folds)) == MAX_FOLDS


@pytest.mark.parametrize(("rarest", "num_folds"), [(2, 2), (3, 3), (5, 5), (9, 5)])
def test_there_are_as_many_folds_as_the_rarest_class_has_groups(rarest: int, num_folds: int) -> None:
    labels = np.repeat([0, 1], [20, rarest])
    folds = stratified_group_folds(labels, groups_of(labels))
    assert folds is not None
    assert sorted(np.unique(folds)) == list(range(num_folds))


def test_a_class_with_a_single_group_is_never_held_out() -> None:
    labels = np.repeat([0, 1, 2], [10, 10, 3])
    groups = [*groups_of(labels)[:20], "one person", "one person", "one person"]
    folds = stratified_group_folds(labels, groups)
    assert folds is not None
    assert (folds[labels == 2] == ALWAYS_TRAINING).all()
    assert (folds[labels != 2] != ALWAYS_TRAINING).all()


def test_each_class_is_in_the_training_part_of_each_fold() -> None:
    # The second class has two groups, but both are led by images of the first.
    labels = np.array([0, 1, 0, 1, 0, 0, 0, 0])
    folds = stratified_group_folds(labels, ["a", "a", "b", "b", "c", "d", "e", "f"])
    assert folds is not None
    for fold in range(folds.max() + 1):
        assert set(labels[folds != fold]) == {0, 1}


def test_there_are_no_folds_if_each_class_has_a_single_group() -> None:
    assert stratified_group_folds(np.array([0, 0, 1, 1]), ["a", "a", "b", "b"]) is None


def test_the_folds_are_the_same_in_each_call() -> None:
    labels = np.repeat([0, 1], 25)
    first, second = (stratified_group_folds(labels, groups_of(labels)) for _ in range(2))
    assert first is not None
    np.testing.assert_array_equal(first, second)


def test_a_data_set_has_at_most_the_folds_of_its_rarest_class(tmp_path: Path) -> None:
    assert count_folds(dataset(tmp_path, {"train": 10, "val": 5, "test": 3})) == MAX_FOLDS
