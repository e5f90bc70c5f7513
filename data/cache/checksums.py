"""Checksums of a folder's files: whether it still holds what was put there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

CHECKSUMS_FILE = ".sums.json"


class FolderChecksums:
    """The size, time, and checksum of every file in a folder, kept in a hidden file beside them."""

    def __init__(self, folder: Path, files: dict[str, tuple[int, int, str]]) -> None:
        self.folder = folder
        self._files = files

    @classmethod
    def of(cls, folder: Path) -> FolderChecksums:
        """Return the sums of a folder as it is now."""
        return cls(folder, {path: (*_stamp(folder / path), _digest(folder / path)) for path in _paths(folder)})

    @classmethod
    def read(cls, folder: Path) -> FolderChecksums | None:
        """Return the sums that were kept in a folder, None where there are none that can be read."""
        try:
            return cls(
                folder, {path: tuple(row) for path, row in json.loads((folder / CHECKSUMS_FILE).read_bytes()).items()}
            )
        except (OSError, ValueError, AttributeError, TypeError):
            return None

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(size for size, _, _ in self._files.values())

    @property
    def last_used(self) -> float:
        """When the folder was last used, in seconds since 1970."""
        return (self.folder / CHECKSUMS_FILE).stat().st_mtime

    @property
    def identity(self) -> tuple[Path, int]:
        """What tells these sums from those of an entry that was made anew."""
        return self.folder, (self.folder / CHECKSUMS_FILE).stat().st_ino

    def save(self) -> None:
        """Write the sums into their folder."""
        (self.folder / CHECKSUMS_FILE).write_text(json.dumps(self._files))

    def mark_used(self) -> None:
        """Note that the folder is used now."""
        os.utime(self.folder / CHECKSUMS_FILE)

    def verify(self, content: bool) -> bool:
        """Return whether every file is as it was put there, by size and time, or also by ``content``.

        The content of a file whose time has changed is compared in any case.
        """
        try:
            return all(self._holds(path, content) for path in self._files)
        except OSError:
            return False

    def _holds(self, path: str, content: bool) -> bool:
        size, time, digest = self._files[path]
        now = _stamp(self.folder / path)
        if now[0] != size:
            return False
        return (now[1] == time and not content) or _digest(self.folder / path) == digest


def _paths(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != CHECKSUMS_FILE:
            yield path.relative_to(folder).as_posix()


def _stamp(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
