"""Augmentations: determinism, strength and the effect of each transform."""

from __future__ import annotations

from collections import Counter
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest

from data.errors import SettingError
from data.loading.augmentation import STRENGTHS, TRANSFORMS, VERSION, Augmentation, build_augmentation

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


def _affine(**ranges: Any) -> A.Affine:
    return A.Affine(border_mode=cv2.BORDER_REFLECT_101, p=0.8, **ranges)


def _cutout() -> A.CoarseDropout:
    return A.CoarseDropout((1, 2), (0.15, 0.35), (0.15, 0.35), fill=128, p=0.5)


ALBUMENTATIONS = {
    "light": lambda: [
        _affine(translate_percent=(-0.06, 0.06), scale=(0.9, 1.1), rotate=(-8, 8)),
        A.RandomBrightnessContrast(0.15, 0.15, p=0.5),
    ],
    "medium": lambda: [
        A.RandomResizedCrop((32, 32), scale=(0.6, 1.0), ratio=(0.8, 1.25)),
        A.HorizontalFlip(p=0.5),
        _affine(translate_percent=(-0.06, 0.06), scale=(0.9, 1.1), rotate=(-10, 10)),
        A.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.02, p=0.5),
    ],
    "strong": lambda: [
        A.RandomResizedCrop((32, 32), scale=(0.35, 1.0), ratio=(0.75, 1.33)),
        A.HorizontalFlip(p=0.5),
        _affine(translate_percent=(-0.1, 0.1), scale=(0.8, 1.2), rotate=(-20, 20)),
        A.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.05, p=0.8),
        A.ToGray(p=0.1),
        _cutout(),
    ],
    "flip+rotate": lambda: [A.HorizontalFlip(p=0.5), _affine(translate_percent=(0.0, 0.0), rotate=(-15, 15))],
    "shift": lambda: [_affine(translate_percent=(-0.1, 0.1), rotate=(0.0, 0.0))],
    "crop": lambda: [A.RandomResizedCrop((32, 32), scale=(0.5, 1.0), ratio=(0.75, 1.33))],
    "color": lambda: [A.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.03, p=0.8)],
    "brightness_contrast": lambda: [A.RandomBrightnessContrast(0.2, 0.2, p=0.8)],
    "cutout": lambda: [_cutout()],
}


@pytest.mark.parametrize("name", ALBUMENTATIONS)
def test_names_keep_their_meaning_while_the_version_in_the_cache_keys_is_the_same(name: str) -> None:
    assert VERSION == 1
    expected = Augmentation(ALBUMENTATIONS[name]())
    for seed in range(30):
        np.testing.assert_array_equal(augmentation(name)(IMAGE, seed), expected(IMAGE, seed))


def test_an_unknown_part_of_a_combination_is_named() -> None:
    with pytest.raises(SettingError, match="got 'turn'"):
        build_augmentation("flip+turn", 32)
