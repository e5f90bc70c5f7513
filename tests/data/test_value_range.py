"""Images of more than 8 bits: one range of values for a data set, which travels with the preprocessing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.audit.report import audit
from data.dataset.value_range import ValueRange, common_range
from data.load_dataset import load_dataset
from data.loading.pixel_cache import pixel_cache
from data.preprocessing import Preprocessing, decode_image, read_image, to_pixels
from tests.conftest import MakeFolder, tiny_image

SIZE = (48, 40)


def write(file: Path, label: int, number: int, low: float, high: float, dtype: type) -> None:
    """Write a noisy gray image whose values are ``low`` to ``high``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    gray = np.asarray(tiny_image(label, number, SIZE).convert("L"), dtype=np.float64)
    scaled = (gray - gray.min()) / (gray.max() - gray.min())
    Image.fromarray((low + scaled * (high - low)).astype(dtype)).save(file)


def folder_of(root: Path, low: float, high: float, dtype: type, suffix: str = ".tif") -> Path:
    for label, name in enumerate(("cat", "dog")):
        for number in range(8):
            write(root / name / f"{number}{suffix}", label, number, low, high, dtype)
    return root


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([], None),
        ([(3, 900), (0, 1020)], (0, 1023)),
        ([(0, 4095), (0, 200)], (0, 4095)),
        ([(0, 255)], (0, 255)),
        ([(0.0, 0.7)], (0, 1)),
        ([(7, 60_000)], (0, 65535)),
        ([(-1024, 3071), (-1000, 200)], (-1024, 3071)),
        ([(0, 100_000)], (0, 100_000)),
        ([(-2, -2)], None),
    ],
)
def test_the_range_of_a_data_set_covers_all_its_images(ranges: list[ValueRange], expected: ValueRange | None) -> None:
    assert common_range(ranges) == expected


@pytest.mark.parametrize(
    ("low", "high", "dtype", "expected"),
    [
        (0, 1000, np.uint16, (0, 1023)),
        (10, 4000, np.uint16, (0, 4095)),
        (-1024, 3071, np.int32, (-1024, 3071)),
        (-2.5, 2.5, np.float32, (-2.5, 2.5)),
        (0, 1, np.float32, (0, 1)),
    ],
)
def test_images_of_more_than_8_bits_use_all_gray_levels(
    tmp_path: Path, low: float, high: float, dtype: type, expected: ValueRange
) -> None:
    dataset = load_dataset(str(folder_of(tmp_path / "images", low, high, dtype)))
    assert dataset.value_range == expected
    assert "few_levels" not in {finding.kind for finding in dataset.findings}
    pixels, _ = pixel_cache(dataset, Preprocessing(40, value_range=dataset.value_range)).split("train")
    assert pixels.min() < 10
    assert pixels.max() > 230


def test_serving_reads_a_file_to_the_numbers_of_training(tmp_path: Path) -> None:
    dataset = load_dataset(str(folder_of(tmp_path / "images", 0, 1000, np.uint16, ".png")))
    preprocessing = Preprocessing(24, value_range=dataset.value_range)
    pixels, _ = pixel_cache(dataset, preprocessing).split("train")
    restored = Preprocessing.from_dict(preprocessing.to_dict())
    for sample, expected in zip(dataset.split("train"), pixels, strict=True):
        image = read_image((dataset.root / sample.path).read_bytes(), restored.value_range)
        np.testing.assert_array_equal(to_pixels(image, restored), expected)


def test_another_image_of_16_bits_moves_no_image(tmp_path: Path, make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 8, "dog": 8}, size=SIZE)
    folder_of(root, 0, 1000, np.uint16)
    before = {sample.path: (sample.content_hash, sample.split) for sample in load_dataset(str(root)).samples}
    write(root / "cat" / "new.tif", 0, 99, 0, 65535, np.uint16)
    after = {sample.path: (sample.content_hash, sample.split) for sample in load_dataset(str(root)).samples}
    assert len(before) == 32
    assert {path: after[path] for path in before} == before


def test_a_data_set_of_8_bits_has_no_range(image_folder: Path) -> None:
    assert load_dataset(str(image_folder)).value_range is None


def test_few_gray_levels_in_the_range_of_the_data_set_are_a_finding(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "images", 0, 65535, np.uint16)
    write(root / "cat" / "dark.tif", 0, 99, 0, 1000, np.uint16)
    files = {finding.kind: finding.files for finding in audit(load_dataset(str(root))).findings}
    assert files["few_levels"] == (("cat/dark.tif",),)


def test_opaque_transparency_is_the_image_without_it() -> None:
    image = tiny_image(0, 0)
    opaque = image.copy()
    opaque.putalpha(255)
    assert decode_image(opaque).mode == "RGB"
    assert decode_image(opaque).tobytes() == image.tobytes()


@pytest.mark.parametrize("value_range", [(1, 1), (2, 1), (0, float("nan")), (0, float("inf")), (0,)])
def test_an_invalid_range_is_rejected(value_range: ValueRange) -> None:
    with pytest.raises(ValueError, match="value_range must be two finite numbers in ascending order"):
        Preprocessing(16, value_range=value_range)
