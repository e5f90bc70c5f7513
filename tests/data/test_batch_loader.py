"""TODO"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from data.loading.batch_config import BatchConfig
from data.loading.batch_loader import BatchLoader
from data.loading.mixup import apply_mixup
from data.loading.views import OnTheFlyImages
from data.preprocessing import Preprocessing, normalize

PREPROCESSING = Preprocessing(8, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
Batch = tuple[torch.Tensor, torch.Tensor]


def batches(count: int = 10, size: int = 4, seed: int = 0, training: bool = True, **config: Any) -> BatchLoader:
    """Return batches of different pictures, each a class of its own."""
    return labelled(list(range(count)), size, seed, training, **config)


def labelled(
    labels: list[int], size: int = 4, seed: int = 0, training: bool = True, ahead: bool = False, **config: Any
) -> BatchLoader:
    pixels = np.random.default_rng(7).integers(0, 256, (len(labels), 8, 8, 3), np.uint8)
    made = BatchConfig(batch_size=size, **({"augmentation": "none"} | config))
    return BatchLoader(pixels, np.array(labels), PREPROCESSING, made, seed=seed, training=training, prefetch=ahead)


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
        BatchLoader(np.zeros((2, 8, 8, 3), np.uint8), np.arange(3), PREPROCESSING, BatchConfig(), seed=0, training=True)


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"augmentation": "heavy"}, "augmentation must be one of none, light"),
        ({"augmentation": "flip+cutuot"}, "got 'cutuot'; did you mean cutout"),
        ({"balance": "weight"}, "balance"),
        ({"mix": "mix"}, "mix"),
        ({"size": 1}, "size"),
    ],
)
def test_a_configuration_is_checked_when_it_is_made(fields: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        BatchConfig(**fields)


def pictures_of(made: BatchLoader, number: int = 0) -> tuple[torch.Tensor, list[int]]:
    """Return all pictures of an epoch and their labels."""
    found = list(made.epoch(number))
    return torch.cat([x for x, _ in found]), [label for _, y in found for label in y.tolist()]


SKEWED = [0] * 20 + [1] * 6 + [2] * 3


def test_weights_are_for_the_loss_and_change_no_batch() -> None:
    weighted, plain = labelled(SKEWED, balance="weights"), labelled(SKEWED)
    assert same(list(weighted.epoch(1)), list(plain.epoch(1)))
    assert plain.class_weights is None
    weights = weighted.class_weights
    assert weights is not None
    assert weights.dtype == torch.float32
    np.testing.assert_allclose(weights * torch.tensor([20, 6, 3]), [29 / 3] * 3, rtol=1e-6)
    assert labelled(SKEWED, balance="weights", training=False).class_weights is None


def test_the_sampler_draws_every_class_alike() -> None:
    made = labelled(SKEWED * 20, balance="sampler", size=32)
    _, labels = pictures_of(made)
    assert len(labels) == len(SKEWED) * 20
    assert all(0.25 < labels.count(label) / len(labels) < 0.42 for label in range(3))


def test_oversampling_shows_every_picture_and_small_classes_again_until_all_are_alike() -> None:
    made = labelled(SKEWED, balance="oversample")
    x, labels = pictures_of(made)
    assert [labels.count(label) for label in range(3)] == [20, 20, 20]
    assert len(made) == 15
    originals = {picture.numpy().tobytes() for picture in torch.from_numpy(normalize(made.pixels, PREPROCESSING))}
    shown = [picture.numpy().tobytes() for picture in x]
    assert originals <= set(shown)


def test_what_oversampling_shows_again_is_augmented_even_where_nothing_else_is() -> None:
    made = labelled(SKEWED, balance="oversample")
    x, _ = pictures_of(made)
    shown = [picture.numpy().tobytes() for picture in x]
    originals = [picture.numpy().tobytes() for picture in torch.from_numpy(normalize(made.pixels, PREPROCESSING))]
    assert sum(shown.count(original) for original in originals) < len(originals) + 12
    assert len(set(shown)) > 45


def test_a_picture_that_is_shown_again_is_varied_in_another_way() -> None:
    made = labelled([0] * 30 + [1], balance="oversample", augmentation="light", size=60)
    x, labels = pictures_of(made)
    again = {picture.numpy().tobytes() for picture, label in zip(x, labels, strict=True) if label == 1}
    assert len(again) > 15


@pytest.mark.parametrize("balance", ["weights", "sampler", "oversample"])
def test_balanced_batches_follow_from_seed_and_epoch_and_validation_is_not_balanced(balance: str) -> None:
    assert same(list(labelled(SKEWED, balance=balance).epoch(2)), list(labelled(SKEWED, balance=balance).epoch(2)))
    assert pictures_of(labelled(SKEWED, balance=balance, training=False))[1] == SKEWED
    assert len(labelled(SKEWED, balance=balance)) == len(list(labelled(SKEWED, balance=balance).epoch(0)))


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_mixed_labels_are_shares_and_mixed_pictures_lie_between(mix: str) -> None:
    made = labelled(SKEWED, mix=mix)
    plain = pictures_of(labelled(SKEWED))[0]
    found = list(made.epoch(0))
    for x, y in found:
        assert (y.dtype, y.shape[1]) == (torch.float32, 3)
        np.testing.assert_allclose(y.sum(dim=1), 1, rtol=1e-5)
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert x.min() >= plain.min() - 1e-5
        assert x.max() <= plain.max() + 1e-5
    assert same(found, list(labelled(SKEWED, mix=mix).epoch(0)))
    assert not torch.equal(torch.cat([x for x, _ in found]), plain)


def test_the_shares_of_cutmix_are_those_of_the_pixels() -> None:
    random = np.random.default_rng(3)
    x = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    for _ in range(20):
        mixed, shares = apply_mixup(x, torch.arange(4), "cutmix", 4, random)
        for picture, share in zip(mixed, shares, strict=True):
            counted = torch.bincount(picture[0].flatten().long(), minlength=4) / 256
            np.testing.assert_allclose(counted, share, atol=1e-6)


def test_validation_is_never_mixed() -> None:
    assert labels(list(labelled([0, 1, 1], mix="mixup", training=False).epoch(0))) == [[0, 1, 1]]


def test_labels_have_a_share_for_classes_that_are_absent_here() -> None:
    pixels = np.zeros((4, 8, 8, 3), np.uint8)
    config = BatchConfig(augmentation="none", mix="mixup")
    made = BatchLoader(pixels, np.array([0, 1, 0, 1]), PREPROCESSING, config, seed=0, training=True, num_classes=5)
    (_, y), *_ = made.epoch(0)
    assert y.shape == (4, 5)


def test_batches_made_ahead_are_the_same() -> None:
    assert same(
        list(batches(augmentation="light").epoch(1)),
        list(labelled(list(range(10)), ahead=True, augmentation="light").epoch(1)),
    )


def test_an_error_while_a_batch_is_made_ahead_is_passed_on() -> None:
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    source = OnTheFlyImages(pixels, PREPROCESSING, seed=0, augmentation="none", balance="none")
    config = BatchConfig(batch_size=2, augmentation="none")
    made = BatchLoader(
        np.zeros((3, 8, 8, 3)), np.arange(3), PREPROCESSING, config, 0, True, prefetch=True, source=source
    )
    with pytest.raises(IndexError, match="out of bounds"):
        list(made.epoch(0))


def test_a_picture_is_varied_in_another_way_in_every_epoch() -> None:
    made = batches(1, augmentation="light")
    shown = {x.numpy().tobytes() for number in range(12) for x, _ in made.epoch(number)}
    assert len(shown) > 8
