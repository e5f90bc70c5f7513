"""TODO"""

from __future__ import annotations

import io
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageEnhance

import data.dataset.near_duplicates
from data.dataset.image_index import content_hash_of
from data.dataset.near_duplicates import find_near_duplicates, high_pass, is_near_duplicate


def photo(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Return something with coarse and fine structure, unlike those of other seeds."""
    random = np.random.default_rng(seed)
    layers = [Image.effect_noise((1, 1), 0).resize(size)]
    total = np.zeros((size[1], size[0], 3))
    for cells, weight in ((5, 60), (12, 30), (40, 20)):
        grain = Image.fromarray(random.integers(0, 256, (cells, cells, 3), np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        total += (np.asarray(grain, dtype=float) - 128) * weight / 60
    del layers
    return Image.fromarray(np.clip(total + 128, 0, 255).astype(np.uint8))


def compressed(image: Image.Image, quality: int = 40) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def twins_of(images: list[Image.Image], folder: Path) -> list[list[int]]:
    looks, paths, order = {}, {}, {}
    for number, image in enumerate(images):
        digest = content_hash_of(image)
        looks[digest], paths[digest], order[digest] = str(imagehash.phash(image)), folder / f"{number}.png", number
        image.save(paths[digest])
    return sorted(sorted(order[digest] for digest in group) for group in find_near_duplicates(looks, paths))


def test_changed_copies_are_twins_and_other_pictures_are_not(tmp_path: Path) -> None:
    first, second = photo(1), photo(2)
    small = first.resize((80, 60), Image.Resampling.BICUBIC)
    bright = ImageEnhance.Brightness(second).enhance(1.2)
    found = twins_of([first, second, compressed(first), photo(3), small, bright, photo(4)], tmp_path)
    assert found == [[0, 2, 4], [1, 5]]


def test_the_same_coarse_look_with_other_detail_is_no_twin() -> None:
    coarse = photo(1).resize((5, 5)).resize((160, 120), Image.Resampling.BICUBIC)
    noisy = [Image.blend(coarse, photo(seed), 0.3) for seed in (11, 12)]
    assert not is_near_duplicate(high_pass(noisy[0]), high_pass(noisy[1]))


def test_a_picture_cut_a_little_differently_is_a_twin() -> None:
    image = photo(5, (320, 320))
    assert is_near_duplicate(high_pass(image.crop((0, 0, 300, 300))), high_pass(image.crop((12, 8, 312, 308))))


def test_flat_pictures_have_nothing_to_compare() -> None:
    flat = high_pass(Image.new("RGB", (64, 64), "gray"))
    assert not is_near_duplicate(flat, flat)


def test_the_search_for_twins_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [photo(1), compressed(photo(1))]
    first = twins_of(images, tmp_path)
    monkeypatch.setattr(data.dataset.near_duplicates, "read_image", lambda path: pytest.fail("it was read again"))
    assert twins_of(images, tmp_path) == first == [[0, 1]]


def test_all_candidates_are_found_beyond_the_first_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.dataset.near_duplicates, "BLOCK_ROWS", 3)
    looks = [f"{value:016x}" for value in (0, 0xFFFF, 1 << 63, 0xFFFF0000, 3 << 62, 0xFFFE, 0xFF << 40, 0xF)]
    hashes = [int(look, 16) for look in looks]
    expected = [(a, b) for a in range(8) for b in range(a + 1, 8) if (hashes[a] ^ hashes[b]).bit_count() <= 4]
    assert sorted(data.dataset.near_duplicates._candidates(looks)) == expected
