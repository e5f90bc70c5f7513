"""Augmented views: their number, the view of each epoch, and that a view is the same in every trial."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch

from data.loading.batch_config import BatchConfig
from data.loading.batch_loader import BatchLoader
from data.loading.views import IDENTITY_VIEW, AugmentedView, FixedViewImages, JoinedSources, views_for
from data.preprocessing import Preprocessing, normalize

PREPROCESSING = Preprocessing(16)
PIXELS = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), np.uint8)
NO_REPEAT = np.zeros(10, dtype=np.intp)


def fixed_views(*views: AugmentedView, seed: int = 0) -> FixedViewImages:
    return FixedViewImages(PIXELS, PREPROCESSING, seed, views)


def test_the_number_of_views_depends_on_augmentation_and_oversampling() -> None:
    assert views_for("light", "none", 2) == (AugmentedView("light", 0), AugmentedView("light", 1))
    assert views_for("none", "sampler", 4) == (IDENTITY_VIEW,)
    assert views_for("none", "oversample", 2) == (IDENTITY_VIEW, AugmentedView("light", 0), AugmentedView("light", 1))
    assert views_for("flip", "oversample", 1) == (AugmentedView("flip", 0),)


def test_views_alternate_between_epochs_and_start_at_the_seed() -> None:
    views = views_for("light", "none", 3)
    assert [fixed_views(*views).view_indices(epoch, NO_REPEAT)[0] for epoch in range(1, 5)] == [1, 2, 0, 1]
    assert [fixed_views(*views, seed=1).view_indices(epoch, NO_REPEAT)[0] for epoch in range(1, 5)] == [2, 0, 1, 2]


def test_a_repeated_image_has_another_view() -> None:
    repeat = np.arange(5)
    assert fixed_views(*views_for("light", "oversample", 3)).view_indices(1, repeat).tolist() == [1, 2, 0, 1, 2]
    assert fixed_views(*views_for("none", "oversample", 3)).view_indices(1, repeat).tolist() == [0, 3, 1, 2, 3]


def test_the_identity_view_is_the_unchanged_image() -> None:
    x = fixed_views(IDENTITY_VIEW).images(np.array([4, 2]), np.array([0, 0]))
    np.testing.assert_array_equal(x.numpy(), normalize(PIXELS[[4, 2]], PREPROCESSING))
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_a_view_depends_only_on_index_and_number() -> None:
    views = (AugmentedView("medium", 0), AugmentedView("medium", 1))
    indices, view_indices = np.arange(10), np.arange(10) % 2
    first = fixed_views(*views).images(indices, view_indices)
    assert torch.equal(
        fixed_views(*views, seed=9).images(indices[::-1].copy(), view_indices[::-1].copy()), first.flip(0)
    )
    assert torch.equal(fixed_views(*views[::-1]).images(indices, 1 - view_indices), first)
    assert not torch.equal(fixed_views(*views).images(indices, 1 - view_indices), first)


def test_images_in_one_view_are_augmented_differently() -> None:
    identical = FixedViewImages(np.repeat(PIXELS[:1], 10, axis=0), PREPROCESSING, 0, (AugmentedView("light", 0),))
    assert len({x.numpy().tobytes() for x in identical.images(np.arange(10), NO_REPEAT)}) > 6


def test_unreferenced_views_are_garbage_collected() -> None:
    source = fixed_views(AugmentedView("light", 0))
    source.images(np.arange(10), NO_REPEAT)
    reference = weakref.ref(source)
    del source
    assert reference() is None


def test_batches_contain_the_views_of_their_epoch() -> None:
    source = fixed_views(*views_for("light", "none", 2))
    loader = BatchLoader(source, np.arange(10), BatchConfig(batch_size=4), 0, training=True, num_classes=10)
    epochs = [torch.cat([x for x, _ in loader.epoch(number)]) for number in (1, 2, 3)]
    contents = [{x.numpy().tobytes() for x in epoch} for epoch in epochs]
    assert contents[0] == contents[2]
    assert not contents[0] & contents[1]
    expected = source.images(np.arange(10), NO_REPEAT + 1)
    assert contents[0] == {x.numpy().tobytes() for x in expected}


def test_mixing_requires_images_augmented_on_the_fly() -> None:
    config, source = BatchConfig(mix="mixup"), fixed_views(IDENTITY_VIEW)
    with pytest.raises(ValueError, match="mix must be none unless images are augmented on the fly, got mixup"):
        BatchLoader(source, np.arange(10), config, 0, training=True, num_classes=10)
    assert len(BatchLoader(source, np.arange(10), config, 0, training=False, num_classes=10)) == 1


def test_joined_sources_give_the_selected_samples_of_both_in_order() -> None:
    first, second = fixed_views(IDENTITY_VIEW), fixed_views(IDENTITY_VIEW)
    num_first, rows = len(first), np.array([1, len(first), 0, len(first) + 1])
    joined = JoinedSources((first, second), num_first, rows)
    none = np.zeros(4, dtype=int)
    gathered = joined.epoch(1)(np.array([3, 2, 1, 0]), none)
    expected = [first.epoch(1)(np.array([index]), none[:1]) for index in (1, 0, 0, 1)]
    assert torch.equal(gathered, torch.cat(expected))
    assert gathered.stride() == first.epoch(1)(np.arange(2), none[:2]).stride()  # the same memory format
    assert torch.equal(joined.epoch(1)(np.array([0]), none[:1]), first.epoch(1)(np.array([1]), none[:1]))
