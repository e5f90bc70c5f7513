"""TODO"""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import data.loading.pixel_cache
from data.errors import DataError
from data.load_dataset import load_dataset
from data.loading.pixel_cache import pixel_cache
from data.preprocessing import Preprocessing, read_image, to_pixels
from tests.conftest import tiny_image

SIZE = Preprocessing(16)


def test_rows_are_the_samples_of_the_split(image_folder: Path) -> None:
    dataset = load_dataset(str(image_folder))
    cache = pixel_cache(dataset, SIZE)
    for name in ("train", "val", "test"):
        pixels, labels = cache.split(name)
        samples = dataset.split(name)
        assert labels.tolist() == [sample.label for sample in samples]
        assert labels.dtype == np.int64
        for row, sample in enumerate(samples):
            np.testing.assert_array_equal(pixels[row], to_pixels(read_image(image_folder / sample.path), SIZE))


def test_pixels_are_mapped_and_can_not_be_written(image_folder: Path) -> None:
    pixels, _ = pixel_cache(load_dataset(str(image_folder)), SIZE).split("train")
    assert isinstance(pixels, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        pixels[0] = 0


def test_pictures_are_decoded_once_for_each_preprocessing(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Path] = []
    monkeypatch.setattr(data.loading.pixel_cache, "read_image", lambda path: decoded.append(path) or read_image(path))
    dataset = load_dataset(str(image_folder))
    for preprocessing in (SIZE, SIZE, Preprocessing(24)):
        pixel_cache(dataset, preprocessing)
    assert len(decoded) == 48
    (image_folder / "red" / "000.png").rename(image_folder / "red" / "renamed.png")
    pixel_cache(load_dataset(str(image_folder)), SIZE)
    assert len(decoded) == 48


def test_a_picture_that_changed_since_it_was_loaded_is_named(image_folder: Path) -> None:
    dataset = load_dataset(str(image_folder))
    tiny_image(4, 4).save(image_folder / "red" / "003.png")
    with pytest.raises(DataError, match=r"stay as they are .* red/003.png .* has changed; start again"):
        pixel_cache(dataset, SIZE)
    (image_folder / "red" / "003.png").unlink()
    with pytest.raises(DataError, match=r"red/003.png .* does not exist; start again"):
        pixel_cache(dataset, SIZE)


def test_a_full_disk_is_said_with_what_is_needed_and_what_is_free(
    image_folder: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load_dataset(str(image_folder))
    monkeypatch.setenv("FREEZELINE_HOME", str(small_disk))
    sentence = r"must fit on the disk: 24 at 128 px take 1\.2 MB, but 0\.[34] MB are free in .*; make room, set FREEZE"
    with pytest.raises(DataError, match=sentence):
        pixel_cache(dataset, Preprocessing(128))
    assert [path for path in small_disk.rglob("*") if path.suffix in (".npy", ".making")] == []
    pixel_cache(dataset, SIZE)


def test_an_error_of_another_kind_is_no_full_disk(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(13, "not yours")

    monkeypatch.setattr(data.loading.pixel_cache, "_make", fail)
    with pytest.raises(PermissionError, match="not yours"):
        pixel_cache(load_dataset(str(image_folder)), SIZE)


def test_a_worker_opens_the_cache_without_torch(image_folder: Path) -> None:
    cache = pixel_cache(load_dataset(str(image_folder)), SIZE)
    code = (
        "import pickle, sys; cache = pickle.loads(sys.stdin.buffer.read()); pixels, labels = cache.split('train')\n"
        "assert pixels.shape == (18, 16, 16, 3); assert not {'torch', 'albumentations'} & set(sys.modules)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, input=pickle.dumps(cache))


def test_progress_is_told_while_pictures_are_resized(image_folder: Path) -> None:
    told: list[tuple[str, int, int]] = []
    pixel_cache(load_dataset(str(image_folder)), SIZE, progress=lambda *step: told.append(step))
    assert told[-1] == ("resizing pictures", 24, 24)
