"""Pictures decoded and resized once: memory-mapped pixels that all trials and later searches share."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data.atomic_write import DISK_FULL_ERRNOS
from data.cache.content_cache import ContentCache, write_npy_header
from data.dataset.dataset import Dataset, Sample
from data.dataset.image_index import content_hash_of
from data.errors import DataError
from data.parallel import Progress, parallel_map
from data.preprocessing import ImageError, Pixels, Preprocessing, read_image, to_pixels
from data.sources.base import SPLITS, SplitName

VERSION = 1  # of the files in an entry


@dataclasses.dataclass(frozen=True)
class PixelCache:
    """The pixels of one data set at one preprocessing; only a path, so it is cheap to send to a worker."""

    folder: Path

    def split(self, name: SplitName) -> tuple[Pixels, npt.NDArray[np.int64]]:
        """Return the pixels, read-only uint8 [n, s, s, 3] mapped from disk, and the labels, int64 [n].

        Row i is ``dataset.split(name)[i]``.
        """
        first, last = json.loads((self.folder / "splits.json").read_bytes())[name]
        pixels = np.load(self.folder / "pixels.npy", mmap_mode="r")
        return pixels[first:last], np.load(self.folder / "labels.npy")[first:last]


def pixel_cache(dataset: Dataset, preprocessing: Preprocessing, progress: Progress | None = None) -> PixelCache:
    """Return the data set's pixels, decoded in parallel where no earlier search has left them in the store.

    Raises:
        DataError: a picture has been changed or taken away since the data set was loaded, or the disk is full.
    """
    settings = json.dumps([VERSION, dataset.fingerprint, preprocessing.to_dict()])
    key = f"pixels/{hashlib.blake2b(settings.encode(), digest_size=16).hexdigest()}"
    store = ContentCache()
    try:
        return PixelCache(store.get_or_create(key, lambda folder: _make(folder, dataset, preprocessing, progress)))
    except OSError as error:
        if error.errno not in DISK_FULL_ERRNOS:
            raise
        raise DataError(_disk_full_error(store.root, len(dataset.samples), preprocessing.image_size)) from error


def _disk_full_error(folder: Path, count: int, size: int) -> str:
    needed, free = count * size * size * 3 / 1e6, shutil.disk_usage(folder).free / 1e6
    return (
        f"decoded pictures must fit on the disk: {count} at {size} px take {needed:.1f} MB, but {free:.1f} MB are free "
        f"in {folder}; make room, set FREEZELINE_HOME to a folder on another disk, or choose a smaller image_size"
    )


def _make(folder: Path, dataset: Dataset, preprocessing: Preprocessing, progress: Progress | None) -> None:
    size, count = preprocessing.image_size, len(dataset.samples)

    def decode(sample: Sample) -> Pixels:
        return _decode(dataset, sample, preprocessing)

    with (folder / "pixels.npy").open("wb") as file:
        write_npy_header(file, np.dtype(np.uint8), (count, size, size, 3))
        for picture in parallel_map(decode, dataset.samples, "resizing pictures", progress):
            file.write(np.ascontiguousarray(picture).data)
    np.save(folder / "labels.npy", np.array([sample.label for sample in dataset.samples], dtype=np.int64))
    (folder / "splits.json").write_text(json.dumps(_bounds(dataset)))


def _decode(dataset: Dataset, sample: Sample, preprocessing: Preprocessing) -> Pixels:
    rule = "pictures must stay as they are while a search starts"
    try:
        image = read_image(dataset.root / sample.path)
    except ImageError as error:
        raise DataError(f"{rule}, but {sample.path} in {dataset.root} {error}; start again") from error
    if content_hash_of(image) != sample.content_hash:
        raise DataError(f"{rule}, but {sample.path} in {dataset.root} has changed; start again")
    return to_pixels(image, preprocessing)


def _bounds(dataset: Dataset) -> dict[str, tuple[int, int]]:
    sizes = [len(dataset.split(name)) for name in SPLITS]
    ends = np.cumsum(sizes).tolist()
    return {name: (end - size, end) for name, size, end in zip(SPLITS, sizes, ends, strict=True)}
