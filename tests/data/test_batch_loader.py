"""The batch loader: order, determinism, balancing, mixing and prefetching."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from data.dataset.stratified_parts import StratifiedParts
from data.loading.batch_config import BatchConfig
from data.loading.batch_loader import BatchLoader
from data.loading.mixup import apply_mixup
from data.loading.views import OnTheFlyImages
from data.preprocessing import Pixels, Preprocessing, normalize

PREPROCESSING = Preprocessing(8, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
Batch = tuple[torch.Tensor, torch.Tensor]


def build_loader(count: int = 10, size: int = 4, seed: int = 0, training: bool = True, **config: Any) -> BatchLoader:
    """Return a loader of ``count`` different images, each with its own label."""
    return build_labeled_loader(list(range(count)), size, seed, training, **config)


def build_labeled_loader(
    labels: list[int], size: int = 4, seed: int = 0, training: bool = True, **kwargs: Any
) -> BatchLoader:
    config = BatchConfig(batch_size=size, **({"augmentation": "none"} | kwargs))
    augmentation = (config.augmentation, config.balance) if training else ()
    source = OnTheFlyImages(pixels_of(len(labels)), PREPROCESSING, seed, *augmentation)
    return BatchLoader(source, np.array(labels), config, seed, training, max(labels) + 1)


def pixels_of(count: int) -> Pixels:
    return np.random.default_rng(7).integers(0, 256, (count, 8, 8, 3), np.uint8)


def originals_of(count: int) -> list[bytes]:
    return [image.numpy().tobytes() for image in torch.from_numpy(normalize(pixels_of(count), PREPROCESSING))]


def labels_of(epoch: Sequence[Batch]) -> list[list[int]]:
    return [y.tolist() for _, y in epoch]


def is_equal(first: Sequence[Batch], second: Sequence[Batch]) -> bool:
    return labels_of(first) == labels_of(second) and all(
        torch.equal(a, b) for (a, _), (b, _) in zip(first, second, strict=True)
    )


def test_validation_batches_contain_all_images_in_order() -> None:
    assert labels_of(list(build_loader(9, 4, training=False).epoch(0))) == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


def test_images_are_normalized() -> None:
    loader = build_loader(training=False)
    (x, _), *_ = loader.epoch(0)
    np.testing.assert_array_equal(x.numpy(), normalize(pixels_of(10)[:4], PREPROCESSING))


def test_tensors_have_the_expected_shapes_types_and_memory_format() -> None:
    for training in (True, False):
        x, y = next(iter(build_loader(training=training).epoch(0)))
        assert (x.shape, x.dtype) == ((4, 3, 8, 8), torch.float32)
        assert (y.shape, y.dtype) == ((4,), torch.int64)
        assert x.is_contiguous(memory_format=torch.channels_last)


def test_each_training_epoch_contains_every_image_once_in_a_different_order() -> None:
    loader = build_loader()
    epochs = [[label for _, y in loader.epoch(number) for label in y.tolist()] for number in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


@pytest.mark.parametrize("augmentation", ["none", "light", "strong"])
def test_batches_depend_only_on_seed_and_epoch(augmentation: str) -> None:
    first = list(build_loader(augmentation=augmentation).epoch(3))
    torch.manual_seed(5)
    np.random.seed(5)
    other = build_loader(augmentation=augmentation)
    list(other.epoch(0))
    assert is_equal(first, list(other.epoch(3)))
    assert not is_equal(first, list(other.epoch(4)))
    assert not is_equal(first, list(build_loader(augmentation=augmentation, seed=1).epoch(3)))


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [(9, 4, [4, 5]), (8, 4, [4, 4]), (10, 4, [4, 4, 2]), (1, 4, [1]), (5, 1, [1] * 5), (3, 8, [3]), (5, 4, [5])],
)
def test_a_last_training_batch_of_one_image_is_merged_into_the_previous_batch(
    count: int, size: int, expected: list[int]
) -> None:
    loader = build_loader(count, size)
    assert [len(y) for _, y in loader.epoch(0)] == expected
    assert len(loader) == len(expected)


def test_the_length_is_the_number_of_validation_batches() -> None:
    loader = build_loader(9, 4, training=False)
    assert len(loader) == len(list(loader.epoch(0))) == 3


def test_a_split_without_images_is_an_error() -> None:
    source = OnTheFlyImages(pixels_of(0), PREPROCESSING, seed=0)
    with pytest.raises(ValueError, match="a loader must have at least 1 image, got 0"):
        BatchLoader(source, np.arange(0), BatchConfig(), seed=0, training=True, num_classes=3)


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
def test_the_configuration_is_validated_on_construction(fields: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        BatchConfig(**fields)


def images_and_labels(loader: BatchLoader, number: int = 0) -> tuple[torch.Tensor, list[int]]:
    """Return all images of an epoch and their labels."""
    batches = list(loader.epoch(number))
    return torch.cat([x for x, _ in batches]), [label for _, y in batches for label in y.tolist()]


IMBALANCED = [0] * 20 + [1] * 6 + [2] * 3


def test_class_weights_do_not_change_the_batches() -> None:
    weighted, unweighted = build_labeled_loader(IMBALANCED, balance="weights"), build_labeled_loader(IMBALANCED)
    assert is_equal(list(weighted.epoch(1)), list(unweighted.epoch(1)))
    assert unweighted.class_weights is None
    weights = weighted.class_weights
    assert weights is not None
    assert weights.dtype == torch.float32
    np.testing.assert_allclose(weights * torch.tensor([20, 6, 3]), [29 / 3] * 3, rtol=1e-6)
    assert build_labeled_loader(IMBALANCED, balance="weights", training=False).class_weights is None


def test_the_sampler_draws_all_classes_equally_often() -> None:
    loader = build_labeled_loader(IMBALANCED * 20, balance="sampler", size=32)
    _, labels = images_and_labels(loader)
    assert len(labels) == len(IMBALANCED) * 20
    assert all(0.25 < labels.count(label) / len(labels) < 0.42 for label in range(3))


def test_oversampling_uses_every_image_and_repeats_small_classes_to_equal_size() -> None:
    loader = build_labeled_loader(IMBALANCED, balance="oversample")
    x, labels = images_and_labels(loader)
    assert [labels.count(label) for label in range(3)] == [20, 20, 20]
    assert len(loader) == 15
    assert set(originals_of(len(IMBALANCED))) <= {image.numpy().tobytes() for image in x}


def test_repeated_images_are_augmented_even_without_augmentation() -> None:
    loader = build_labeled_loader(IMBALANCED, balance="oversample")
    x, _ = images_and_labels(loader)
    images = [image.numpy().tobytes() for image in x]
    originals = originals_of(len(IMBALANCED))
    assert sum(images.count(original) for original in originals) < len(originals) + 12
    assert len(set(images)) > 45


def test_repetitions_of_an_image_are_augmented_differently() -> None:
    loader = build_labeled_loader([0] * 30 + [1], balance="oversample", augmentation="light", size=60)
    x, labels = images_and_labels(loader)
    repetitions = {image.numpy().tobytes() for image, label in zip(x, labels, strict=True) if label == 1}
    assert len(repetitions) > 15


@pytest.mark.parametrize("balance", ["weights", "sampler", "oversample"])
def test_balanced_batches_are_deterministic_and_validation_is_not_balanced(balance: str) -> None:
    assert is_equal(
        list(build_labeled_loader(IMBALANCED, balance=balance).epoch(2)),
        list(build_labeled_loader(IMBALANCED, balance=balance).epoch(2)),
    )
    assert images_and_labels(build_labeled_loader(IMBALANCED, balance=balance, training=False))[1] == IMBALANCED
    assert len(build_labeled_loader(IMBALANCED, balance=balance)) == len(
        list(build_labeled_loader(IMBALANCED, balance=balance).epoch(0))
    )


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_mixed_labels_are_class_shares_and_mixed_images_stay_in_range(mix: str) -> None:
    loader = build_labeled_loader(IMBALANCED, mix=mix)
    unmixed = images_and_labels(build_labeled_loader(IMBALANCED))[0]
    batches = list(loader.epoch(0))
    for x, y in batches:
        assert (y.dtype, y.shape[1]) == (torch.float32, 3)
        np.testing.assert_allclose(y.sum(dim=1), 1, rtol=1e-5)
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert x.min() >= unmixed.min() - 1e-5
        assert x.max() <= unmixed.max() + 1e-5
    assert is_equal(batches, list(build_labeled_loader(IMBALANCED, mix=mix).epoch(0)))
    assert not torch.equal(torch.cat([x for x, _ in batches]), unmixed)


def test_cutmix_label_shares_equal_the_pixel_shares() -> None:
    rng = np.random.default_rng(3)
    x = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    for _ in range(20):
        mixed, shares = apply_mixup(x, torch.arange(4), "cutmix", 4, rng)
        for image, share in zip(mixed, shares, strict=True):
            pixel_share = torch.bincount(image[0].flatten().long(), minlength=4) / 256
            np.testing.assert_allclose(pixel_share, share, atol=1e-6)


def test_validation_is_never_mixed() -> None:
    assert labels_of(list(build_labeled_loader([0, 1, 1], mix="mixup", training=False).epoch(0))) == [[0, 1, 1]]


def test_mixed_labels_include_classes_without_images() -> None:
    config = BatchConfig(augmentation="none", mix="mixup")
    source = OnTheFlyImages(pixels_of(4), PREPROCESSING, seed=0)
    loader = BatchLoader(source, np.array([0, 1, 0, 1]), config, seed=0, training=True, num_classes=5)
    (_, y), *_ = loader.epoch(0)
    assert y.shape == (4, 5)


@pytest.fixture
def pinning_threads(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """Simulate a GPU; return the threads that pin tensors."""
    threads: list[threading.Thread] = []

    def pin_memory(x: torch.Tensor) -> torch.Tensor:
        threads.append(threading.current_thread())
        return x

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    return threads


def test_with_a_gpu_another_thread_prepares_and_pins_the_same_batches(
    monkeypatch: pytest.MonkeyPatch, pinning_threads: list[threading.Thread]
) -> None:
    prefetched = list(build_loader(augmentation="light").epoch(1))
    assert len(pinning_threads) == 2 * len(prefetched)  # images and labels of each batch, once
    assert threading.current_thread() not in pinning_threads
    monkeypatch.undo()
    assert is_equal(prefetched, list(build_loader(augmentation="light").epoch(1)))


@pytest.mark.usefixtures("pinning_threads")
def test_an_error_during_prefetching_is_raised() -> None:
    source = OnTheFlyImages(pixels_of(2), PREPROCESSING, seed=0)
    loader = BatchLoader(source, np.arange(3), BatchConfig(batch_size=2), seed=0, training=True, num_classes=3)
    with pytest.raises(IndexError, match="out of bounds"):
        list(loader.epoch(0))


def test_an_image_is_augmented_differently_in_every_epoch() -> None:
    loader = build_loader(1, augmentation="light")
    augmented = {x.numpy().tobytes() for number in range(12) for x, _ in loader.epoch(number)}
    assert len(augmented) > 8


def test_each_epoch_of_a_parted_loader_has_one_part_of_the_images() -> None:
    labels = np.repeat([0, 1], [60, 40])
    parts = StratifiedParts(labels, 50)
    pixels = np.tile(np.arange(100, dtype=np.uint8)[:, None, None, None], (1, 8, 8, 3))
    source = OnTheFlyImages(pixels, Preprocessing(8, mean=(0, 0, 0), std=(1, 1, 1)), seed=0)
    loader = BatchLoader(source, labels, BatchConfig(batch_size=8), 0, True, 2, parts)
    assert (len(loader), len(loader.labels)) == (7, 50)
    for epoch in (0, 1, 2):
        batches = list(loader.epoch(epoch))
        images = sorted(round(float(image[0, 0, 0]) * 255) for x, _ in batches for image in x)
        assert images == parts.rows(epoch).tolist()
        assert sum(y.sum().item() for _, y in batches) == 20
