"""TODO"""

from __future__ import annotations

from collections import Counter

import albumentations as A
import numpy as np
import pytest

from data.errors import SettingError
from data.loading.augmentation import STRENGTHS, TRANSFORMS, Augmentation, build_augmentation

PICTURE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


def policy(name: str, size: int = 32) -> Augmentation:
    built = build_augmentation(name, size)
    assert built is not None
    return built


def test_no_augmentation_is_no_policy() -> None:
    assert build_augmentation("none", 32) is None


@pytest.mark.parametrize("name", ["light", "medium", "strong"])
def test_a_varied_picture_follows_from_its_seed_alone(name: str) -> None:
    first = [policy(name)(PICTURE, seed) for seed in range(6)]
    np.random.seed(1)
    again = policy(name)
    again(PICTURE, 99)
    for seed in (5, 3, 0):
        np.testing.assert_array_equal(again(PICTURE, seed), first[seed])
    assert len({picture.tobytes() for picture in first}) > 3


@pytest.mark.parametrize("name", ["light", "medium", "strong"])
def test_a_varied_picture_keeps_its_shape_and_the_original_stays(name: str) -> None:
    original = PICTURE.copy()
    varied = policy(name)(PICTURE, 0)
    assert (varied.shape, varied.dtype) == ((32, 32, 3), np.uint8)
    np.testing.assert_array_equal(PICTURE, original)


def test_light_never_mirrors_a_picture() -> None:
    half = np.zeros((32, 32, 3), np.uint8)
    half[:, 22:] = 200
    light, medium = policy("light"), policy("medium")
    assert all(light(half, seed)[:, 24:].mean() > light(half, seed)[:, :8].mean() for seed in range(40))
    assert any(medium(half, seed)[:, 24:].mean() < medium(half, seed)[:, :8].mean() for seed in range(40))


def test_harder_policies_change_more() -> None:
    smooth = np.tile(np.linspace(0, 255, 32)[:, None, None], (1, 32, 3)).astype(np.uint8)
    change = {
        name: np.mean([np.abs(policy(name)(smooth, seed).astype(int) - smooth).mean() for seed in range(30)])
        for name in ("light", "medium", "strong")
    }
    assert change["light"] < change["medium"] < change["strong"]


def test_an_unknown_policy_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SettingError, match=r"one of none, light, .*got 'lihgt'; did you mean light"):
        build_augmentation("lihgt", 32)


def test_every_policy_can_be_built_for_every_size() -> None:
    assert list(STRENGTHS) == ["none", "light", "medium", "strong"]
    for size in (8, 33):
        picture = np.zeros((size, size, 3), np.uint8)
        assert policy("strong", size)(picture, 1).shape == picture.shape


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_a_classic_by_its_name_changes_a_picture(name: str) -> None:
    varied = [policy(name)(PICTURE, seed) for seed in range(8)]
    assert any((one != PICTURE).any() for one in varied)
    assert all(one.shape == PICTURE.shape for one in varied)


def test_classics_are_combined_with_a_plus() -> None:
    both = policy("flip+cutout")
    varied = {both(PICTURE, seed).tobytes() for seed in range(40)}
    assert PICTURE.tobytes() in varied
    assert np.ascontiguousarray(PICTURE[:, ::-1]).tobytes() in varied
    assert len(varied) > 10


def test_transforms_act_independently_of_each_other() -> None:
    built = Augmentation([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)])
    marked = np.zeros((8, 8, 3), np.uint8)
    marked[0, 0] = 255
    places = Counter(int(np.argmax(built(marked, seed)[:, :, 0])) for seed in range(400))
    assert len(places) == 4
    assert min(places.values()) > 60


def test_a_part_that_is_unknown_is_named() -> None:
    with pytest.raises(SettingError, match="got 'rotate'"):
        build_augmentation("flip+rotate", 32)
