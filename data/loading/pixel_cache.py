"""Pixel cache: decoded and resized images in a memory-mapped file, shared by all trials and searches."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from data.atomic_write import DISK_FULL_ERRNOS
from data.cache.content_cache import ContentCache, write_npy_header
from data.dataset.dataset import Dataset, Sample
from data.dataset.image_index import content_hash_of
from data.errors import DataError
from data.parallel import ProgressCallback, process_map
from data.preprocessing import ImageError, Pixels, Preprocessing, decode_image, to_pixels, to_rgb
from data.sources.base import SPLITS, SplitName
from data.text import pluralize

VERSION = 1  # of the file format of an entry


@dataclasses.dataclass(frozen=True)
class PixelCache:
    """The pixels of one data set with one preprocessing. Holds only a path, so it is cheap to send to workers."""

    folder: Path

    def split(self, name: SplitName) -> tuple[Pixels, npt.NDArray[np.int64]]:
        """Return the pixels of a split, read-only memory-mapped uint8 [n, s, s, 3], and its labels, int64 [n].

        Index i corresponds to ``dataset.split(name)[i]``.
        """
        return self._rows(*self._ranges()[name])

    def development(self) -> tuple[Pixels, npt.NDArray[np.int64]]:
        """Return the same for the training images, followed by the validation images."""
        ranges = self._ranges()
        return self._rows(ranges["train"][0], ranges["val"][1])

    def _ranges(self) -> dict[SplitName, tuple[int, int]]:
        ranges: dict[SplitName, tuple[int, int]] = json.loads((self.folder / "splits.json").read_bytes())
        return ranges

    def _rows(self, start: int, stop: int) -> tuple[Pixels, npt.NDArray[np.int64]]:
        pixels = np.load(self.folder / "pixels.npy", mmap_mode="r")
        return pixels[start:stop], np.load(self.folder / "labels.npy")[start:stop]


class SelectedPixels:
    """Rows of an array of pixels [n, s, s, 3], read when they are indexed."""

    def __init__(self, pixels: Pixels, rows: npt.NDArray[np.int64]) -> None:
        """Take the array, which may be memory-mapped, and the selected rows."""
        self._pixels = pixels
        self._rows = rows

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def __getitem__(self, indices: npt.NDArray[np.intp]) -> Pixels:
        """Return the rows with these indices [b] among the selected ones."""
        return np.asarray(self._pixels[self._rows[indices]])


@dataclasses.dataclass(frozen=True)
class FoldPixels:
    """The pixels of a data set of which one fold of the training and validation images is the validation split."""

    pixels: PixelCache
    is_validation: npt.NDArray[np.bool_]

    def split(self, name: SplitName) -> tuple[Pixels | SelectedPixels, npt.NDArray[np.int64]]:
        """Return the pixels of a split and its labels, int64 [n]; the test split is unchanged."""
        if name == "test":
            return self.pixels.split(name)
        pixels, labels = self.pixels.development()
        rows = self.rows(name)
        return SelectedPixels(pixels, rows), labels[rows]

    def rows(self, name: SplitName) -> npt.NDArray[np.int64]:
        """Return the rows of ``train`` or ``val`` among the data set's training images, followed by the validation."""
        return np.flatnonzero(self.is_validation == (name == "val"))


def pixel_cache(dataset: Dataset, preprocessing: Preprocessing, progress: ProgressCallback | None = None) -> PixelCache:
    """Return the cached pixels of a data set; decode the images in parallel if they are not cached.

    Raises:
        DataError: an image was changed or deleted since the data set was loaded, or the disk is full.
    """
    cache, key = ContentCache(), _key(dataset, preprocessing)
    with _disk_full_as_data_error(cache.root, dataset, [preprocessing]):
        return PixelCache(cache.get_or_create(key, lambda folder: _create({folder: preprocessing}, dataset, progress)))


def create_pixel_caches(
    dataset: Dataset, preprocessings: Iterable[Preprocessing], progress: ProgressCallback | None = None
) -> None:
    """Create the pixel caches of several preprocessings that are missing; each image is decoded once for all of them.

    Raises:
        DataError: as for ``pixel_cache``.
    """
    cache = ContentCache()
    by_key = {_key(dataset, preprocessing): preprocessing for preprocessing in preprocessings}
    missing = [(key, by_key[key]) for key in sorted(by_key) if cache.get(key) is None]  # in one order: no deadlock

    def create(number: int, folders: dict[Path, Preprocessing]) -> None:
        """Open the entries from ``number`` on within each other, and fill all ``folders`` in the innermost call."""
        if number == len(missing):
            if folders:
                _create(folders, dataset, progress)
            return
        key, preprocessing = missing[number]
        is_opened = False

        def create_others(folder: Path) -> None:
            nonlocal is_opened
            is_opened = True
            create(number + 1, {**folders, folder: preprocessing})

        cache.get_or_create(key, create_others)
        if not is_opened:  # another process has created this one in the meantime
            create(number + 1, folders)

    with _disk_full_as_data_error(cache.root, dataset, [preprocessing for _, preprocessing in missing]):
        create(0, {})


def _key(dataset: Dataset, preprocessing: Preprocessing) -> str:
    """Return the key of an entry; mean and standard deviation do not change the pixels."""
    fields = {name: value for name, value in preprocessing.to_dict().items() if name not in ("mean", "std")}
    settings = json.dumps([VERSION, dataset.samples_fingerprint, fields])
    return f"pixels/{hashlib.blake2b(settings.encode(), digest_size=16).hexdigest()}"


@contextlib.contextmanager
def _disk_full_as_data_error(folder: Path, dataset: Dataset, preprocessings: Sequence[Preprocessing]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL_ERRNOS:
            raise
        raise DataError(_disk_full_error(folder, len(dataset.samples), preprocessings)) from error


def _disk_full_error(folder: Path, count: int, preprocessings: Sequence[Preprocessing]) -> str:
    sizes = sorted(preprocessing.image_size for preprocessing in preprocessings)
    required_mb = sum(count * size * size * 3 for size in sizes) / 1e6
    free_mb = shutil.disk_usage(folder).free / 1e6
    return (
        f"decoded images must fit on the disk: {pluralize(count, 'image')} at {', '.join(map(str, sizes))} px take "
        f"{required_mb:.1f} MB, but only {free_mb:.1f} MB are free in {folder}; free some space, set FREEZELINE_HOME "
        "to a folder on another disk, or use a smaller image_size"
    )


def _create(folders: Mapping[Path, Preprocessing], dataset: Dataset, progress: ProgressCallback | None) -> None:
    """Fill the folders of entries, each with the pixels of its preprocessing."""
    arrays = tuple(_create_array(folder, each, len(dataset.samples)) for folder, each in folders.items())
    decode = partial(_decode, dataset.root, arrays)
    for _ in process_map(decode, list(enumerate(dataset.samples)), "resizing images", progress):
        pass
    for folder in folders:
        np.save(folder / "labels.npy", np.array([sample.label for sample in dataset.samples], dtype=np.int64))
        (folder / "splits.json").write_text(json.dumps(_split_ranges(dataset)))


class _PixelArray(NamedTuple):
    """A file of pixels [n, s, s, 3]: its path, where its first row starts in bytes, and the preprocessing."""

    path: Path
    start: int
    preprocessing: Preprocessing

    def write(self, row: int, image: Image.Image) -> None:
        """Write a row; not through a memory map, because writing to one on a full disk kills the process."""
        pixels = to_pixels(to_rgb(image, self.preprocessing.value_range), self.preprocessing)
        with self.path.open("r+b") as file:
            file.seek(self.start + row * pixels.nbytes)
            file.write(np.ascontiguousarray(pixels).data)


def _create_array(folder: Path, preprocessing: Preprocessing, num_images: int) -> _PixelArray:
    path, size = folder / "pixels.npy", preprocessing.image_size
    with path.open("wb") as file:
        write_npy_header(file, np.dtype(np.uint8), (num_images, size, size, 3))
        return _PixelArray(path, file.tell(), preprocessing)


def _decode(root: Path, arrays: Sequence[_PixelArray], numbered: tuple[int, Sample]) -> None:
    """Decode an image once, and write its pixels to the row with its number in each array."""
    row, sample = numbered
    rule = "images must not change while a search starts"
    try:
        image = decode_image(root / sample.path)
    except ImageError as error:
        raise DataError(f"{rule}, but {sample.path} in {root} {error}; run the command again") from error
    if content_hash_of(image) != sample.content_hash:
        raise DataError(f"{rule}, but {sample.path} in {root} has changed; run the command again")
    for array in arrays:
        array.write(row, image)


def _split_ranges(dataset: Dataset) -> dict[str, tuple[int, int]]:
    sizes = [len(dataset.split(name)) for name in SPLITS]
    ends = np.cumsum(sizes).tolist()
    return {name: (end - size, end) for name, size, end in zip(SPLITS, sizes, ends, strict=True)}
