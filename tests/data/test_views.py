"""How pictures vary: which views there are, which an epoch shows, and that a view is the same in every trial."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch

from data.loading.batch_config import BatchConfig
from data.loading.batch_loader import BatchLoader
from data.loading.views import IDENTITY_VIEW, AugmentedView, FixedViewImages, views_for, views_in_epoch
from data.preprocessing import Preprocessing, normalize

PREPROCESSING = Preprocessing(16)
PIXELS = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), np.uint8)
ONCE = np.zeros(10, dtype=np.intp)


def viewed(*views: AugmentedView, seed: int = 0) -> FixedViewImages:
    return FixedViewImages(PIXELS, PREPROCESSING, seed, views)


def test_there_are_as_many_views_as_asked_for_and_one_of_what_is_not_augmented() -> None:
    assert views_for("light", "none", 2) == (AugmentedView("light", 0), AugmentedView("light", 1))
    assert views_for("none", "sampler", 4) == (IDENTITY_VIEW,)
    assert views_for("none", "oversample", 2) == (IDENTITY_VIEW, AugmentedView("light", 0), AugmentedView("light", 1))
    assert views_for("flip", "oversample", 1) == (AugmentedView("flip", 0),)


def test_views_take_turns_from_epoch_to_epoch_and_begin_where_the_seed_says() -> None:
    views = views_for("light", "none", 3)
    assert [views_in_epoch(views, 0, epoch, ONCE)[0] for epoch in range(1, 5)] == [1, 2, 0, 1]
    assert [views_in_epoch(views, 1, epoch, ONCE)[0] for epoch in range(1, 5)] == [2, 0, 1, 2]


def test_what_an_epoch_shows_again_is_another_view() -> None:
    again = np.arange(5)
    assert views_in_epoch(views_for("light", "oversample", 3), 0, 1, again).tolist() == [1, 2, 0, 1, 2]
    assert views_in_epoch(views_for("none", "oversample", 3), 0, 1, again).tolist() == [0, 3, 1, 2, 3]


def test_a_plain_view_is_the_picture() -> None:
    x = viewed(IDENTITY_VIEW).images(np.array([4, 2]), np.array([0, 0]))
    np.testing.assert_array_equal(x.numpy(), normalize(PIXELS[[4, 2]], PREPROCESSING))
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_a_view_depends_on_row_and_number_alone() -> None:
    views = (AugmentedView("medium", 0), AugmentedView("medium", 1))
    rows, which = np.arange(10), np.arange(10) % 2
    first = viewed(*views).images(rows, which)
    assert torch.equal(viewed(*views, seed=9).images(rows[::-1].copy(), which[::-1].copy()), first.flip(0))
    assert torch.equal(viewed(*views[::-1]).images(rows, 1 - which), first)
    assert not torch.equal(viewed(*views).images(rows, 1 - which), first)


def test_pictures_of_one_view_are_varied_each_in_its_own_way() -> None:
    alike = FixedViewImages(np.repeat(PIXELS[:1], 10, axis=0), PREPROCESSING, 0, (AugmentedView("light", 0),))
    assert len({x.numpy().tobytes() for x in alike.images(np.arange(10), ONCE)}) > 6


def test_pictures_in_views_are_freed_when_nobody_needs_them() -> None:
    source = viewed(AugmentedView("light", 0))
    source.images(np.arange(10), ONCE)
    freed = weakref.ref(source)
    del source
    assert freed() is None


def test_batches_show_the_views_of_their_epoch() -> None:
    source = viewed(*views_for("light", "none", 2))
    made = BatchLoader(PIXELS, np.arange(10), PREPROCESSING, BatchConfig(batch_size=4), 0, training=True, source=source)
    epochs = [torch.cat([x for x, _ in made.epoch(number)]) for number in (1, 2, 3)]
    shown = [{x.numpy().tobytes() for x in epoch} for epoch in epochs]
    assert shown[0] == shown[2]
    assert not shown[0] & shown[1]
    expected = source.images(np.arange(10), ONCE + 1)
    assert shown[0] == {x.numpy().tobytes() for x in expected}


def test_only_pictures_augmented_anew_can_be_mixed() -> None:
    config = BatchConfig(mix="mixup")
    with pytest.raises(ValueError, match="mix must be none here, got mixup"):
        BatchLoader(PIXELS, np.arange(10), PREPROCESSING, config, 0, training=True, source=viewed(IDENTITY_VIEW))
    assert (
        len(BatchLoader(PIXELS, np.arange(10), PREPROCESSING, config, 0, training=False, source=viewed(IDENTITY_VIEW)))
        == 1
    )
