from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from data.batches import BatchConfig, Batches
from data.preprocess import Preprocessing, normalize

PREPROCESSING = Preprocessing(8, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
Batch = tuple[torch.Tensor, torch.Tensor]


def batches(
    count: int = 10, size: int = 4, seed: int = 0, training: bool = True, augmentation: Any = "none"
) -> Batches:
    pixels = np.random.default_rng(7).integers(0, 256, (count, 8, 8, 3), np.uint8)
    config = BatchConfig(batch_size=size, augmentation=augmentation)
    return Batches(pixels, np.arange(count), PREPROCESSING, config, seed=seed, training=training)


def labels(epoch: Sequence[Batch]) -> list[list[int]]:
    return [y.tolist() for _, y in epoch]


def same(first: Sequence[Batch], second: Sequence[Batch]) -> bool:
    return labels(first) == labels(second) and all(
        torch.equal(a, b) for (a, _), (b, _) in zip(first, second, strict=True)
    )


def test_validation_batches_come_in_order_and_hold_every_picture() -> None:
    assert labels(list(batches(9, 4, training=False).epoch(0))) == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


def test_the_numbers_are_those_of_normalize() -> None:
    made = batches(training=False)
    (x, _), *_ = made.epoch(0)
    np.testing.assert_array_equal(x.numpy(), normalize(made.pixels[:4], PREPROCESSING))


def test_tensors_have_the_shapes_types_and_memory_that_training_wants() -> None:
    for training in (True, False):
        x, y = next(iter(batches(training=training).epoch(0)))
        assert (x.shape, x.dtype) == ((4, 3, 8, 8), torch.float32)
        assert (y.shape, y.dtype) == ((4,), torch.int64)
        assert x.is_contiguous(memory_format=torch.channels_last)


def test_training_shows_every_picture_once_an_epoch_in_another_order() -> None:
    made = batches()
    epochs = [[label for _, y in made.epoch(number) for label in y.tolist()] for number in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


@pytest.mark.parametrize("augmentation", ["none", "light", "strong"])
def test_the_same_seed_and_epoch_give_the_same_batches_whatever_ran_before(augmentation: str) -> None:
    first = list(batches(augmentation=augmentation).epoch(3))
    torch.manual_seed(5)
    np.random.seed(5)
    again = batches(augmentation=augmentation)
    list(again.epoch(0))
    assert same(first, list(again.epoch(3)))
    assert not same(first, list(again.epoch(4)))
    assert not same(first, list(batches(augmentation=augmentation, seed=1).epoch(3)))


def test_only_training_is_augmented() -> None:
    assert same(list(batches(training=False).epoch(0)), list(batches(training=False, augmentation="strong").epoch(0)))


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [(9, 4, [4, 5]), (8, 4, [4, 4]), (10, 4, [4, 4, 2]), (1, 4, [1]), (5, 1, [1] * 5), (3, 8, [3]), (5, 4, [5])],
)
def test_a_last_training_batch_of_one_picture_joins_the_one_before(count: int, size: int, expected: list[int]) -> None:
    made = batches(count, size)
    assert [len(y) for _, y in made.epoch(0)] == expected
    assert len(made) == len(expected)


def test_the_length_is_the_number_of_batches_in_validation_too() -> None:
    made = batches(9, 4, training=False)
    assert len(made) == len(list(made.epoch(0))) == 3


def test_pictures_and_labels_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="as many and at least one, got 2, 3"):
        Batches(np.zeros((2, 8, 8, 3), np.uint8), np.arange(3), PREPROCESSING, BatchConfig(), seed=0, training=True)


@pytest.mark.parametrize(
    ("fields", "rule"),
    [({"batch_size": 0}, "batch_size"), ({"augmentation": "heavy"}, "augmentation"), ({"size": 1}, "size")],
)
def test_a_configuration_is_checked_when_it_is_made(fields: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        BatchConfig(**fields)
