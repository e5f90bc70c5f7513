"""Checksums of the files in a folder, for detecting corruption."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

CHECKSUMS_FILE = ".checksums.json"


class FolderChecksums:
    """Size, modification time and checksum of every file in a folder, stored in a hidden file in that folder."""

    def __init__(self, folder: Path, files: dict[str, tuple[int, int, str]]) -> None:
        self.folder = folder
        self._files = files

    @classmethod
    def from_folder(cls, folder: Path) -> FolderChecksums:
        """Compute the checksums of the current content of a folder."""
        return cls(folder, {path: (*_stat_key(folder / path), _digest(folder / path)) for path in _paths(folder)})

    @classmethod
    def load(cls, folder: Path) -> FolderChecksums | None:
        """Return the stored checksums of a folder, or None if they are missing or unreadable."""
        try:
            return cls(
                folder, {path: tuple(row) for path, row in json.loads((folder / CHECKSUMS_FILE).read_bytes()).items()}
            )
        except (OSError, ValueError, AttributeError, TypeError):
            return None

    @property
    def size_bytes(self) -> int:
        """Total size of the files."""
        return sum(size for size, _, _ in self._files.values())

    @property
    def last_used(self) -> float:
        """Time of the last use, as Unix time in seconds."""
        return (self.folder / CHECKSUMS_FILE).stat().st_mtime

    @property
    def identity(self) -> tuple[Path, int]:
        """Key that changes when the entry is recreated."""
        return self.folder, (self.folder / CHECKSUMS_FILE).stat().st_ino

    def save(self) -> None:
        """Store the checksums in their folder."""
        (self.folder / CHECKSUMS_FILE).write_text(json.dumps(self._files))

    def mark_used(self) -> None:
        """Set the time of the last use to now."""
        os.utime(self.folder / CHECKSUMS_FILE)

    def verify(self, content: bool) -> bool:
        """Return whether all files have the same size and, if ``content`` or a time has changed, the same content."""
        try:
            return all(self._is_unchanged(path, content) for path in self._files)
        except OSError:
            return False

    def _is_unchanged(self, path: str, content: bool) -> bool:
        size, mtime_ns, digest = self._files[path]
        current_size, current_mtime_ns = _stat_key(self.folder / path)
        if current_size != size:
            return False
        return (current_mtime_ns == mtime_ns and not content) or _digest(self.folder / path) == digest


def _paths(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != CHECKSUMS_FILE:
            yield path.relative_to(folder).as_posix()


def _stat_key(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
