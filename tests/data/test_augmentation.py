"""Augmentations: determinism, strength and the effect of each transform."""

from __future__ import annotations

from collections import Counter

import albumentations as A
import numpy as np
import pytest

from data.errors import SettingError
from data.loading.augmentation import STRENGTHS, TRANSFORMS, Augmentation, build_augmentation

IMAGE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


def augmentation(name: str, size: int = 32) -> Augmentation:
    built = build_augmentation(name, size)
    assert built is not None
    return built


def test_the_augmentation_none_has_no_transforms() -> None:
    assert build_augmentation("none", 32) is None


@pytest.mark.parametrize("name", ["light", "medium", "strong"])
def test_an_augmented_image_depends_only_on_the_seed(name: str) -> None:
    first = [augmentation(name)(IMAGE, seed) for seed in range(6)]
    np.random.seed(1)
    second = augmentation(name)
    second(IMAGE, 99)
    for seed in (5, 3, 0):
        np.testing.assert_array_equal(second(IMAGE, seed), first[seed])
    assert len({image.tobytes() for image in first}) > 3


@pytest.mark.parametrize("name", ["light", "medium", "strong"])
def test_augmentation_keeps_the_shape_and_does_not_change_the_original(name: str) -> None:
    original = IMAGE.copy()
    augmented = augmentation(name)(IMAGE, 0)
    assert (augmented.shape, augmented.dtype) == ((32, 32, 3), np.uint8)
    np.testing.assert_array_equal(IMAGE, original)


def test_light_never_flips_an_image() -> None:
    half = np.zeros((32, 32, 3), np.uint8)
    half[:, 22:] = 200
    light, medium = augmentation("light"), augmentation("medium")
    assert all(light(half, seed)[:, 24:].mean() > light(half, seed)[:, :8].mean() for seed in range(40))
    assert any(medium(half, seed)[:, 24:].mean() < medium(half, seed)[:, :8].mean() for seed in range(40))


def test_higher_strengths_change_more() -> None:
    smooth = np.tile(np.linspace(0, 255, 32)[:, None, None], (1, 32, 3)).astype(np.uint8)
    change = {
        name: np.mean([np.abs(augmentation(name)(smooth, seed).astype(int) - smooth).mean() for seed in range(30)])
        for name in ("light", "medium", "strong")
    }
    assert change["light"] < change["medium"] < change["strong"]


def test_an_unknown_augmentation_is_refused_with_a_suggestion() -> None:
    with pytest.raises(SettingError, match=r"one of none, light, .*got 'lihgt'; did you mean light"):
        build_augmentation("lihgt", 32)


def test_augmentations_work_for_all_image_sizes() -> None:
    assert list(STRENGTHS) == ["none", "light", "medium", "strong"]
    for size in (8, 33):
        image = np.zeros((size, size, 3), np.uint8)
        assert augmentation("strong", size)(image, 1).shape == image.shape


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_each_transform_changes_an_image(name: str) -> None:
    augmented = [augmentation(name)(IMAGE, seed) for seed in range(8)]
    assert any((image != IMAGE).any() for image in augmented)
    assert all(image.shape == IMAGE.shape for image in augmented)


def test_transforms_are_combined_with_a_plus() -> None:
    flip_and_cutout = augmentation("flip+cutout")
    augmented = {flip_and_cutout(IMAGE, seed).tobytes() for seed in range(40)}
    assert IMAGE.tobytes() in augmented
    assert np.ascontiguousarray(IMAGE[:, ::-1]).tobytes() in augmented
    assert len(augmented) > 10


def test_transforms_are_applied_independently() -> None:
    flips = Augmentation([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)])
    marked = np.zeros((8, 8, 3), np.uint8)
    marked[0, 0] = 255
    positions = Counter(int(np.argmax(flips(marked, seed)[:, :, 0])) for seed in range(400))
    assert len(positions) == 4
    assert min(positions.values()) > 60


def test_an_unknown_part_of_a_combination_is_named() -> None:
    with pytest.raises(SettingError, match="got 'turn'"):
        build_augmentation("flip+turn", 32)
