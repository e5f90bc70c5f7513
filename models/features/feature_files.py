"""The files of a feature cache entry: a network's output for every image of a split, memory-mapped.

An entry holds the array ``features.npy``, [n, ...] with its axes in memory order, and that order in ``axes.json``:
features that are read have the same strides as the computed ones.

Shapes: n images, b of them in a batch.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data.cache.content_cache import write_npy_header
from data.loading.class_balance import Indices

logger = logging.getLogger(__name__)

ARRAY_FILE, AXES_FILE = "features.npy", "axes.json"
# Arrays up to this size are cached in memory, the most recently used ones: at most 256 MB as float32.
MAX_CACHED_BYTES, MAX_CACHED_ARRAYS = 8 * 2**20, 16

Floats = npt.NDArray[np.floating]


class StridedTensor(NamedTuple):
    """A contiguous tensor [b, ...] with its axes in memory order, and that order.

    Attributes:
        values: contiguous values.
        axes: for each axis of ``values``, the axis of the original tensor.
    """

    values: Tensor
    axes: tuple[int, ...]

    @property
    def unpacked(self) -> Tensor:
        """View of the values with the axes of the original tensor."""
        return self.values.permute(*(self.axes.index(axis) for axis in range(len(self.axes))))


def to_memory_order(x: Tensor) -> StridedTensor:
    """Return a tensor [b, ...] with its axes sorted by their strides; the batch axis stays first."""
    sorted_axes = sorted(range(1, x.ndim), key=x.stride, reverse=True)
    axes = (0, *sorted_axes)
    return StridedTensor(x.permute(*axes).contiguous(), axes)


def write_features(folder: Path, compute: Callable[[], Iterable[Tensor]], num_images: int, is_fp16: bool) -> None:
    """Write the features of ``num_images`` images; ``compute`` returns an iterable over batches [b, ...].

    With ``is_fp16`` they are stored as float16; if a value exceeds its range, everything is computed again as float32.

    Raises:
        OSError: the disk is full.
    """
    if is_fp16 and _write_array(folder, compute(), num_images, np.dtype(np.float16)):
        return
    if is_fp16:
        logger.info("features exceed the range of float16 and are cached as float32")
    _write_array(folder, compute(), num_images, np.dtype(np.float32))


def _write_array(folder: Path, batches: Iterable[Tensor], num_images: int, dtype: np.dtype[np.floating]) -> bool:
    """Write all batches; return False at the first value that overflows the dtype."""
    axes: tuple[int, ...] = ()
    with (folder / ARRAY_FILE).open("wb") as file:
        for batch in batches:
            tensor, axes = to_memory_order(batch)
            values = tensor.numpy()
            if file.tell() == 0:
                write_npy_header(file, dtype, (num_images, *values.shape[1:]))
            with np.errstate(over="ignore"):
                cast = values.astype(dtype, copy=False)
            if dtype != values.dtype and not np.isfinite(cast).all():
                return False
            file.write(cast.data)
    (folder / AXES_FILE).write_text(json.dumps(axes))
    return True


class StoredFeatures:
    """The array of a feature cache entry."""

    def __init__(self, folder: Path) -> None:
        """Open the array; a small one is read into memory."""
        array: Floats = np.asarray(np.load(folder / ARRAY_FILE, mmap_mode="r"))
        self.is_small = array.nbytes <= MAX_CACHED_BYTES
        self._array = array.astype(np.float32) if self.is_small else array
        self._axes = tuple(json.loads((folder / AXES_FILE).read_bytes()))

    def rows(self, rows: Indices) -> StridedTensor:
        """Return rows [b] as float32 [b, ...]."""
        return StridedTensor(torch.from_numpy(self._array[rows]).float(), self._axes)


# By entry. Entries are content-addressed, so they never become stale.
_CACHED_ARRAYS: OrderedDict[Path, StoredFeatures] = OrderedDict()


def get_cached(folder: Path) -> StoredFeatures | None:
    """Return an array from this process's memory without disk access, or None."""
    if folder not in _CACHED_ARRAYS:
        return None
    _CACHED_ARRAYS.move_to_end(folder)
    return _CACHED_ARRAYS[folder]


def open_features(folder: Path) -> StoredFeatures:
    """Return an array of an entry in the cache; a small one stays in memory."""
    stored = StoredFeatures(folder)
    if stored.is_small:
        _CACHED_ARRAYS[folder] = stored
        while len(_CACHED_ARRAYS) > MAX_CACHED_ARRAYS:
            _CACHED_ARRAYS.popitem(last=False)
    return stored
