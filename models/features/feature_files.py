"""The files of an entry: what a network gave for every picture of a split, memory-mapped.

An entry holds one or several arrays, ``0.npy``, ``1.npy``, ..., each [n, ...] with the axes in the order in which they
lay in memory, and that order in ``axes.json``: what is read back lies in memory as what was computed.

Shapes: n pictures, b of them in a batch.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data.cache.content_cache import write_npy_header
from data.loading.class_balance import Indices

logger = logging.getLogger(__name__)

AXES = "axes.json"
SMALL_BYTES, MAX_CACHED_ARRAYS = (
    8 * 2**20,
    16,
)  # what is this small is kept in memory, the last so many of it: 256 MB at most

Floats = npt.NDArray[np.floating]


class StridedTensor(NamedTuple):
    """Values [b, ...] with their axes in the order in which they lie in memory, and that order."""

    values: Tensor
    axes: tuple[int, ...]

    @property
    def unpacked(self) -> Tensor:
        """The values with their own axes, in the same place in memory."""
        return self.values.permute(*(self.axes.index(axis) for axis in range(len(self.axes))))


def to_memory_order(x: Tensor) -> StridedTensor:
    """Return values [b, ...] with axes in the order of their strides; the first one stays the first."""
    rest = sorted(range(1, x.ndim), key=x.stride, reverse=True)
    axes = (0, *rest)
    return StridedTensor(x.permute(*axes).contiguous(), axes)


def write_features(
    folder: Path, compute: Callable[[], Iterable[tuple[Tensor, ...]]], count: int, is_fp16: bool
) -> None:
    """Write what ``compute`` yields for ``count`` pictures, batch after batch, in float16 if ``half`` and they fit.

    Values beyond float16 make it begin again, in float32.

    Raises:
        OSError: there is no room for it.
    """
    if is_fp16 and _write_arrays(folder, compute(), count, np.dtype(np.float16)):
        return
    if is_fp16:
        logger.info("features go beyond what float16 can hold: they are kept in float32")
    _write_arrays(folder, compute(), count, np.dtype(np.float32))


def _write_arrays(
    folder: Path, batches: Iterable[tuple[Tensor, ...]], count: int, dtype: np.dtype[np.floating]
) -> bool:
    """Write all batches; return False at the first value that the type turns into an infinity."""
    axes: list[tuple[int, ...]] = []
    with ExitStack() as stack:
        files = None
        for batch in batches:
            packed = [to_memory_order(x) for x in batch]
            if files is None:
                axes = [part.axes for part in packed]
                files = [stack.enter_context((folder / f"{at}.npy").open("wb")) for at in range(len(packed))]
                for file, part in zip(files, packed, strict=True):
                    write_npy_header(file, dtype, (count, *part.values.shape[1:]))
            for file, part in zip(files, packed, strict=True):
                values = part.values.numpy()
                with np.errstate(over="ignore"):
                    cast = values.astype(dtype, copy=False)
                if dtype != values.dtype and not np.isfinite(cast).all():
                    return False
                file.write(cast.data)
    (folder / AXES).write_text(json.dumps(axes))
    return True


class StoredFeatures:
    """One array of an entry."""

    def __init__(self, folder: Path, index: int) -> None:
        """Open array ``index``; a small one is read into memory."""
        array: Floats = np.asarray(np.load(folder / f"{index}.npy", mmap_mode="r"))
        self.is_small = array.nbytes <= SMALL_BYTES
        self._array = array.astype(np.float32) if self.is_small else array
        self._axes = tuple(json.loads((folder / AXES).read_bytes())[index])

    def rows(self, rows: Indices) -> StridedTensor:
        """Return rows [b] as float32 [b, ...]."""
        return StridedTensor(torch.from_numpy(self._array[rows]).float(), self._axes)


_SMALL: OrderedDict[tuple[Path, int], StoredFeatures] = (
    OrderedDict()
)  # by entry; content-addressed, so never out of date


def get_cached(folder: Path, index: int) -> StoredFeatures | None:
    """Return an array that this process has in memory, without looking at the disk."""
    if (folder, index) not in _SMALL:
        return None
    _SMALL.move_to_end((folder, index))
    return _SMALL[folder, index]


def open_features(folder: Path, index: int) -> StoredFeatures:
    """Return an array of an entry that is in the store; a small one is remembered."""
    stored = StoredFeatures(folder, index)
    if stored.is_small:
        _SMALL[folder, index] = stored
        while len(_SMALL) > MAX_CACHED_ARRAYS:
            _SMALL.popitem(last=False)
    return stored
