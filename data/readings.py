"""What each file's pixels say, read once: decoded in parallel and remembered until the file changes."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import PIL
from PIL import Image

from data.preprocess import ImageError, read_image
from data.store import home, write_atomically
from data.values import Value

Progress = Callable[[str, int, int], None]  # what is being done, how many are done, of how many
A = TypeVar("A")
B = TypeVar("B")
VERSION = 1  # of what a reading holds and how it is computed


class Reading(Value):
    """What one file's content says.

    Attributes:
        digest: of the upright RGB pixels and their shape; None where the file can't be read.
        width: in pixels, upright.
        height: likewise.
        problem: why it can't be read, else empty.
    """

    digest: str | None
    width: int = 0
    height: int = 0
    problem: str = ""


def read_all(root: Path, paths: Sequence[str], progress: Progress | None = None) -> dict[str, Reading]:
    """Return a reading for each of the paths (relative to ``root``), in their order.

    Files whose size, time, and inode are those of an earlier call are not opened again. A file that
    can't be read gives a reading with a problem; nothing is raised for it.
    """
    memory = _Memory(root)
    stamps = {path: _stamp(root / path) for path in paths}
    known = {path: reading for path in paths if (reading := memory.recall(path, stamps[path]))}
    unread = [path for path in paths if path not in known]
    fresh = dict(zip(unread, _read_files([root / path for path in unread], progress), strict=True))
    if fresh:
        memory.keep({path: (stamps[path], known.get(path) or fresh[path]) for path in paths})
    return {path: known.get(path) or fresh[path] for path in paths}


def digest_of(image: Image.Image) -> str:
    """Return the name of an RGB picture's content: the same pixels in the same shape, the same text."""
    shape = f"{image.width}x{image.height}:".encode()
    return hashlib.blake2b(shape + image.tobytes(), digest_size=16).hexdigest()


def in_parallel(work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """Yield ``work(item)`` in the order of the items; Pillow decodes outside Python's lock, so threads do."""
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        warnings.filterwarnings("ignore", module="PIL")  # it remarks on broken tags that we can do without
        yield from pool.map(work, items)


def _read_files(paths: Sequence[Path], progress: Progress | None) -> Iterator[Reading]:
    for done, reading in enumerate(in_parallel(_read, paths), start=1):
        if progress:
            progress("reading pictures", done, len(paths))
        yield reading


def _read(path: Path) -> Reading:
    try:
        image = read_image(path)
    except ImageError as error:
        return Reading(digest=None, problem=str(error))
    return Reading(digest=digest_of(image), width=image.width, height=image.height)


def _stamp(path: Path) -> list[int]:
    try:
        state = path.stat()
    except OSError:
        return []
    return [state.st_size, state.st_mtime_ns, state.st_ino]


class _Memory:
    """The readings of one root, in one file under ``home()``."""

    def __init__(self, root: Path) -> None:
        name = hashlib.blake2b(f"{VERSION} {PIL.__version__} {root}".encode(), digest_size=16).hexdigest()
        self.path = home() / "readings" / f"{name}.json"
        try:
            self.kept = json.loads(self.path.read_bytes())
        except (OSError, ValueError):  # absent, or not written by us: read the pictures again
            self.kept = {}

    def recall(self, path: str, stamp: list[int]) -> Reading | None:
        kept = self.kept.get(path)
        return Reading(**kept[1]) if kept and stamp and kept[0] == stamp else None

    def keep(self, readings: dict[str, tuple[list[int], Reading]]) -> None:
        rows = {path: (stamp, reading.model_dump()) for path, (stamp, reading) in readings.items()}
        write_atomically(self.path, json.dumps(rows).encode())
