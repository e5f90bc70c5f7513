"""What each file's pixels say, read once: decoded in parallel and remembered until the file changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from data.atomic_write import write_atomically
from data.frozen_model import FrozenModel
from data.home import state_dir
from data.parallel import Progress, parallel_map
from data.preprocessing import ImageError, read_image

MIN_HASH_SIDE = 32  # px; a perceptual hash of a smaller picture pairs hundreds wrongly
VERSION = 2  # of what a reading holds and how it is computed


class ImageInfo(FrozenModel):
    """What one file's content says.

    Attributes:
        digest: of the upright RGB pixels and their shape; None where the file can't be read.
        width: in pixels, upright.
        height: likewise.
        problem: why it can't be read, else empty.
        look: 64-bit perceptual hash in hexadecimal; empty where the short side is below ``MIN_HASH_SIDE``.
        gray_as_colour: it has only grays, and is stored with three colors.
    """

    content_hash: str | None
    width: int = 0
    height: int = 0
    problem: str = ""
    phash: str = ""
    is_gray_stored_as_color: bool = False

    @property
    def short_side(self) -> int:
        """The shorter of width and height, in pixels."""
        return min(self.width, self.height)


def index_images(root: Path, paths: Sequence[str], progress: Progress | None = None) -> dict[str, ImageInfo]:
    """Return a reading for each of the paths (relative to ``root``), in their order.

    Files whose size, time, and inode are those of an earlier call are not opened again. A file that
    can't be read gives a reading with a problem; nothing is raised for it.
    """
    memory = _IndexCache(root)
    stamps = {path: _stat_key(root / path) for path in paths}
    known = {path: reading for path in paths if (reading := memory.get(path, stamps[path]))}
    unread = [path for path in paths if path not in known]
    found = parallel_map(_read, [root / path for path in unread], "reading pictures", progress)
    fresh = dict(zip(unread, found, strict=True))
    if fresh:
        memory.put({path: (stamps[path], known.get(path) or fresh[path]) for path in paths})
    return {path: known.get(path) or fresh[path] for path in paths}


def content_hash_of(image: Image.Image) -> str:
    """Return the name of an RGB picture's content: the same pixels in the same shape, the same text."""
    shape = f"{image.width}x{image.height}:".encode()
    return hashlib.blake2b(shape + image.tobytes(), digest_size=16).hexdigest()


def _read(path: Path) -> ImageInfo:
    try:
        image = read_image(path)
    except ImageError as error:
        return ImageInfo(content_hash=None, problem=str(error))
    return ImageInfo(
        content_hash=content_hash_of(image),
        width=image.width,
        height=image.height,
        phash=_phash(image),
        is_gray_stored_as_color=_is_gray(image) and _stored_mode(path) in ("RGB", "RGBA", "CMYK", "YCbCr"),
    )


def _phash(image: Image.Image) -> str:
    import imagehash

    return str(imagehash.phash(image)) if min(image.size) >= MIN_HASH_SIDE else ""


def _is_gray(image: Image.Image) -> bool:
    pixels = np.asarray(image)
    return np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 1], pixels[..., 2])


def _stored_mode(path: Path) -> str:
    with Image.open(path) as image:
        return image.mode


def _stat_key(path: Path) -> list[int]:
    try:
        state = path.stat()
    except OSError:
        return []
    return [state.st_size, state.st_mtime_ns, state.st_ino]


class _IndexCache:
    """The readings of one root, in one file under ``home()``."""

    def __init__(self, root: Path) -> None:
        name = hashlib.blake2b(f"{VERSION} {PIL.__version__} {root}".encode(), digest_size=16).hexdigest()
        self.path = state_dir() / "image_index" / f"{name}.json"
        try:
            self._infos = json.loads(self.path.read_bytes())
        except (OSError, ValueError):  # absent, or not written by us: read the pictures again
            self._infos = {}

    def get(self, path: str, stamp: list[int]) -> ImageInfo | None:
        kept = self._infos.get(path)
        return ImageInfo(**kept[1]) if kept and stamp and kept[0] == stamp else None

    def put(self, readings: dict[str, tuple[list[int], ImageInfo]]) -> None:
        rows = {path: (stamp, reading.model_dump()) for path, (stamp, reading) in readings.items()}
        write_atomically(self.path, json.dumps(rows).encode())
