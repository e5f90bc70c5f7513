"""Near-duplicates: which changes of an image are recognized, and that the result is cached."""

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
    """Return an image with low and high frequencies that is different for each seed."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size[1], size[0], 3))
    for cells, weight in ((5, 60), (12, 30), (40, 20)):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
        layer = noise.resize(size, Image.Resampling.BICUBIC)
        total += (np.asarray(layer, dtype=float) - 128) * weight / 60
    return Image.fromarray(np.clip(total + 128, 0, 255).astype(np.uint8))


def compressed(image: Image.Image, quality: int = 40) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def near_duplicates_of(images: list[Image.Image], folder: Path) -> list[list[int]]:
    """Return groups of positions in ``images``."""
    phashes, paths, positions = {}, {}, {}
    for position, image in enumerate(images):
        key = content_hash_of(image)
        phashes[key], paths[key], positions[key] = str(imagehash.phash(image)), folder / f"{position}.png", position
        image.save(paths[key])
    return sorted(sorted(positions[key] for key in group) for group in find_near_duplicates(phashes, paths))


def test_changed_copies_are_near_duplicates_and_other_images_are_not(tmp_path: Path) -> None:
    first, second = photo(1), photo(2)
    small = first.resize((80, 60), Image.Resampling.BICUBIC)
    bright = ImageEnhance.Brightness(second).enhance(1.2)
    groups = near_duplicates_of([first, second, compressed(first), photo(3), small, bright, photo(4)], tmp_path)
    assert groups == [[0, 2, 4], [1, 5]]


def test_images_with_equal_low_but_different_high_frequencies_are_not_near_duplicates() -> None:
    coarse = photo(1).resize((5, 5)).resize((160, 120), Image.Resampling.BICUBIC)
    blended = [Image.blend(coarse, photo(seed), 0.3) for seed in (11, 12)]
    assert not is_near_duplicate(high_pass(blended[0]), high_pass(blended[1]))


def test_a_slightly_different_crop_is_a_near_duplicate() -> None:
    image = photo(5, (320, 320))
    assert is_near_duplicate(high_pass(image.crop((0, 0, 300, 300))), high_pass(image.crop((12, 8, 312, 308))))


def test_uniform_images_are_not_near_duplicates() -> None:
    uniform = high_pass(Image.new("RGB", (64, 64), "gray"))
    assert not is_near_duplicate(uniform, uniform)


def test_near_duplicates_are_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [photo(1), compressed(photo(1))]
    first = near_duplicates_of(images, tmp_path)
    monkeypatch.setattr(data.dataset.near_duplicates, "read_image", lambda path: pytest.fail("read again"))
    assert near_duplicates_of(images, tmp_path) == first == [[0, 1]]


def test_all_candidates_are_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.dataset.near_duplicates, "BLOCK_ROWS", 3)
    phashes = [f"{value:016x}" for value in (0, 0xFFFF, 1 << 63, 0xFFFF0000, 3 << 62, 0xFFFE, 0xFF << 40, 0xF)]
    hashes = [int(phash, 16) for phash in phashes]
    expected = [(a, b) for a in range(8) for b in range(a + 1, 8) if (hashes[a] ^ hashes[b]).bit_count() <= 4]
    assert sorted(data.dataset.near_duplicates._candidates(phashes)) == expected
