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
from data.dataset.near_duplicates import _candidates, are_near_duplicates, find_near_duplicates, high_pass
from data.load_dataset import load_dataset
from data.sources.options import DataOptions


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
    assert not are_near_duplicates(high_pass(blended[0])[None], high_pass(blended[1])[None])


def test_a_slightly_different_crop_is_a_near_duplicate() -> None:
    image = photo(5, (320, 320))
    first, second = (high_pass(image.crop(box)) for box in ((0, 0, 300, 300), (12, 8, 312, 308)))
    assert are_near_duplicates(first[None], second[None]).all()


def test_uniform_images_are_not_near_duplicates() -> None:
    uniform = high_pass(Image.new("RGB", (64, 64), "gray"))
    assert not are_near_duplicates(uniform[None], uniform[None])


def test_near_duplicates_are_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [photo(1), compressed(photo(1))]
    first = near_duplicates_of(images, tmp_path)
    monkeypatch.setattr(data.dataset.near_duplicates, "decode_image", lambda path: pytest.fail("read again"))
    assert near_duplicates_of(images, tmp_path) == first == [[0, 1]]


def test_all_candidates_are_found_once() -> None:
    rng = np.random.default_rng(0)
    centers = [int(value) for value in rng.integers(0, 2**63, 40)]
    flips = [[1 << int(bit) for bit in rng.choice(64, int(rng.integers(0, 7)), replace=False)] for _ in range(400)]
    hashes = [centers[number % 40] ^ sum(bits) for number, bits in enumerate(flips)]
    expected = [(a, b) for a in range(400) for b in range(a + 1, 400) if (hashes[a] ^ hashes[b]).bit_count() <= 4]
    found = [
        pair for pairs in _candidates([f"{value:016x}" for value in hashes]) for pair in map(tuple, pairs.tolist())
    ]
    assert sorted(found) == expected
    assert len(expected) > 400


@pytest.mark.parametrize("is_confirmed", [True, False])
def test_comparisons_are_proportional_to_the_number_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_confirmed: bool
) -> None:
    photo(1).save(tmp_path / "a.png")
    counts = []
    for size in (100, 400):
        calls: list[int] = []

        def compare(a: np.ndarray, _: np.ndarray, calls: list[int] = calls) -> np.ndarray:
            calls.extend([1] * len(a))
            return np.full(len(a), is_confirmed)

        monkeypatch.setattr(data.dataset.near_duplicates, "are_near_duplicates", compare)
        keys = [f"{is_confirmed} {number:04}" for number in range(size)]
        groups = find_near_duplicates(dict.fromkeys(keys, "0" * 16), dict.fromkeys(keys, tmp_path / "a.png"))
        assert groups == ([keys] if is_confirmed else [])
        counts.append(len(calls) / size)
    assert counts[1] == pytest.approx(counts[0], rel=0.1)
    assert counts[1] < 40


def fixed_camera(root: Path, count: int = 20) -> Path:
    """Write the same view with small differences, in two classes."""
    view = np.asarray(photo(1)).astype(int)
    for label, name in enumerate(("ok", "scratch")):
        (root / name).mkdir(parents=True)
        for number in range(count):
            noise = np.random.default_rng((label, number)).integers(-4, 5, view.shape)
            Image.fromarray(np.clip(view + noise, 0, 255).astype(np.uint8)).save(root / name / f"{number}.png")
    return root


def test_a_quarter_of_the_images_that_look_alike_is_reported_and_not_tied(tmp_path: Path) -> None:
    dataset = load_dataset(str(fixed_camera(tmp_path / "camera")))
    assert {sample.group for sample in dataset.samples} == {""}
    (finding,) = dataset.findings
    assert (finding.kind, finding.count) == ("near_duplicate_untied", 40)
    assert all(dataset.counts()[split][name] for split in ("train", "val", "test") for name in ("ok", "scratch"))


@pytest.mark.parametrize(("option", "kinds"), [("report", ["near_duplicate_untied"]), ("off", [])])
def test_near_duplicates_can_be_reported_only_or_not_searched(tmp_path: Path, option: str, kinds: list[str]) -> None:
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "d" / name).mkdir(parents=True)
        for number in range(8):
            image = photo(100 * label + number)
            image.save(tmp_path / "d" / name / f"{number}.png")
            compressed(image).save(tmp_path / "d" / name / f"{number} again.png")
    grouped = load_dataset(str(tmp_path / "d"))
    assert [finding.kind for finding in grouped.findings] == ["near_duplicate"]
    options = DataOptions.model_validate({"data": str(tmp_path / "d"), "near_duplicates": option})
    dataset = load_dataset(options)
    assert [finding.kind for finding in dataset.findings] == kinds
    assert {sample.group for sample in dataset.samples} == {""}
