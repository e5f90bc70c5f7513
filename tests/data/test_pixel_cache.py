"""The pixel cache: content, reuse, changed images and a full disk."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import data.loading.pixel_cache
from data.cache.content_cache import ContentCache
from data.errors import DataError
from data.load_dataset import load_dataset
from data.loading.pixel_cache import FoldPixels, create_pixel_caches, pixel_cache
from data.preprocessing import Preprocessing, decode_image, read_image, to_pixels
from data.sources.base import SPLITS
from tests.conftest import tiny_image

PREPROCESSING = Preprocessing(16)


def test_pixels_and_labels_are_in_the_order_of_the_split(image_folder: Path) -> None:
    dataset = load_dataset(str(image_folder))
    cache = pixel_cache(dataset, PREPROCESSING)
    for name in ("train", "val", "test"):
        pixels, labels = cache.split(name)
        samples = dataset.split(name)
        assert labels.tolist() == [sample.label for sample in samples]
        assert labels.dtype == np.int64
        for index, sample in enumerate(samples):
            expected = to_pixels(read_image(image_folder / sample.path), PREPROCESSING)
            np.testing.assert_array_equal(pixels[index], expected)


def test_the_pixels_of_a_fold_are_those_of_its_training_and_validation_images(image_folder: Path) -> None:
    dataset = load_dataset(str(image_folder))
    folds = np.arange(len(dataset.development)) % 2
    of_fold = FoldPixels(pixel_cache(dataset, PREPROCESSING), folds == 1)
    expected_samples = {
        "train": [sample for sample, fold in zip(dataset.development, folds, strict=True) if fold != 1],
        "val": [sample for sample, fold in zip(dataset.development, folds, strict=True) if fold == 1],
        "test": list(dataset.split("test")),
    }
    for name in SPLITS:
        pixels, labels = of_fold.split(name)
        samples = expected_samples[name]
        assert len(pixels) == len(samples)
        assert labels.tolist() == [sample.label for sample in samples]
        indices = np.arange(len(samples))[::-1]
        expected = [to_pixels(read_image(image_folder / samples[index].path), PREPROCESSING) for index in indices]
        np.testing.assert_array_equal(pixels[indices], expected)


def test_pixels_are_memory_mapped_and_read_only(image_folder: Path) -> None:
    pixels, _ = pixel_cache(load_dataset(str(image_folder)), PREPROCESSING).split("train")
    assert isinstance(pixels, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        pixels[0] = 0


def test_images_are_decoded_once_per_preprocessing(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Path] = []
    monkeypatch.setattr(
        data.loading.pixel_cache, "decode_image", lambda path: decoded.append(path) or decode_image(path)
    )
    dataset = load_dataset(str(image_folder))
    for preprocessing in (PREPROCESSING, PREPROCESSING, Preprocessing(24)):
        pixel_cache(dataset, preprocessing)
    assert len(decoded) == 48
    (image_folder / "red" / "000.png").rename(image_folder / "red" / "renamed.png")
    pixel_cache(load_dataset(str(image_folder)), PREPROCESSING)
    assert len(decoded) == 48


def test_several_caches_are_created_with_one_decoding_of_each_image(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []
    monkeypatch.setattr(
        data.loading.pixel_cache, "decode_image", lambda path: decoded.append(path) or decode_image(path)
    )
    dataset = load_dataset(str(image_folder))
    same_pixels = Preprocessing(24, mean=(0.1, 0.1, 0.1))
    preprocessings = [PREPROCESSING, Preprocessing(24), same_pixels, Preprocessing(32, interpolation="bilinear")]
    pixel_cache(dataset, PREPROCESSING)
    create_pixel_caches(dataset, preprocessings)
    create_pixel_caches(dataset, preprocessings)
    assert len(decoded) == 48
    for preprocessing in preprocessings:
        pixels, _ = pixel_cache(dataset, preprocessing).split("val")
        samples = dataset.split("val")
        expected = [to_pixels(read_image(image_folder / sample.path), preprocessing) for sample in samples]
        np.testing.assert_array_equal(pixels, expected)
    assert len(decoded) == 48


def test_a_cache_that_another_process_creates_in_the_meantime_is_left_to_it(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, preprocessings = load_dataset(str(image_folder)), [Preprocessing(size) for size in (16, 24, 32)]
    for other in preprocessings:
        with monkeypatch.context() as patch:
            pixel_cache(dataset, other)
            patch.setattr(ContentCache, "get", lambda *_: None)  # as if it were created after it was looked for
            create_pixel_caches(dataset, preprocessings)
        for preprocessing in preprocessings:
            assert pixel_cache(dataset, preprocessing).split("train")[0].shape[1] == preprocessing.image_size
        ContentCache().clear()


def test_an_image_that_changed_after_loading_is_named(image_folder: Path) -> None:
    dataset = load_dataset(str(image_folder))
    tiny_image(4, 4).save(image_folder / "red" / "003.png")
    with pytest.raises(DataError, match=r"images must not change .* red/003.png .* has changed; run the command again"):
        pixel_cache(dataset, PREPROCESSING)
    (image_folder / "red" / "003.png").unlink()
    with pytest.raises(DataError, match=r"red/003.png .* does not exist; run the command again"):
        pixel_cache(dataset, PREPROCESSING)


def test_the_error_of_a_full_disk_names_required_and_free_space(
    image_folder: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load_dataset(str(image_folder))
    monkeypatch.setenv("FREEZELINE_HOME", str(small_disk))
    message = (
        r"must fit on the disk: 24 images at 128 px take 1\.2 MB, but only 0\.[34] MB are free in .*; free some space"
    )
    with pytest.raises(DataError, match=message):
        pixel_cache(dataset, Preprocessing(128))
    with pytest.raises(DataError, match=r"24 images at 64, 128 px take 1\.5 MB"):
        create_pixel_caches(dataset, [Preprocessing(128), Preprocessing(64)])
    assert [path for path in small_disk.rglob("*") if path.suffix in (".npy", ".partial")] == []
    pixel_cache(dataset, PREPROCESSING)


def test_other_disk_errors_are_not_reported_as_a_full_disk(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(13, "read-only")

    monkeypatch.setattr(data.loading.pixel_cache, "_create", fail)
    with pytest.raises(PermissionError, match="read-only"):
        pixel_cache(load_dataset(str(image_folder)), PREPROCESSING)


def test_a_worker_opens_the_cache_without_importing_torch(image_folder: Path) -> None:
    cache = pixel_cache(load_dataset(str(image_folder)), PREPROCESSING)
    code = (
        "import pickle, sys; cache = pickle.loads(sys.stdin.buffer.read()); pixels, labels = cache.split('train')\n"
        "assert pixels.shape == (18, 16, 16, 3); assert not {'torch', 'albumentations'} & set(sys.modules)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, input=pickle.dumps(cache))


def test_resizing_reports_progress(image_folder: Path) -> None:
    reports: list[tuple[str, int, int]] = []
    pixel_cache(load_dataset(str(image_folder)), PREPROCESSING, progress=lambda *report: reports.append(report))
    assert reports[-1] == ("resizing images", 24, 24)
