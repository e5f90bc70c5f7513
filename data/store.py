"""One content-addressed store on disk, shared by all trials and by later searches.

An entry is a folder under its key. It is made in a folder beside and renamed, under a lock for its key, so a
reader sees all of it or none, two makers make it once, and what a killed maker left is thrown away by the next.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import platformdirs
from filelock import FileLock

KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


def home() -> Path:
    """Return the folder of all state that outlives a clone: FREEZELINE_HOME, or the user's cache directory."""
    chosen = os.environ.get("FREEZELINE_HOME")
    return Path(chosen).expanduser().resolve() if chosen else platformdirs.user_cache_path("freezeline")


class Store:
    """Entries under ``root``, each a folder that is complete or absent."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root if root is not None else home() / "store"

    def get_or_make(self, key: str, make: Callable[[Path], None]) -> Path:
        """Return the entry's folder; where it is absent, ``make(folder)`` fills an empty folder first.

        While one process makes an entry, others wait for it. What ``make`` raises is passed on and leaves no entry.
        Nothing may write into an entry afterwards. Raises ValueError for a key that is no relative path of
        letters, digits and ``_ . -``.
        """
        entry = self._entry(key)
        if entry.is_dir():
            return entry
        entry.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(entry.parent / f".{entry.name}.lock"):
            if not entry.is_dir():
                self._make(entry, make)
        return entry

    def _entry(self, key: str) -> Path:
        if not KEY.fullmatch(key):
            raise ValueError(f"a store's key must be letters, digits, '_', '.', '-' between '/', got {key!r}")
        return self.root / key

    @staticmethod
    def _make(entry: Path, make: Callable[[Path], None]) -> None:
        making = entry.parent / f".{entry.name}.making"
        shutil.rmtree(making, ignore_errors=True)  # of a maker that was killed: we hold its lock
        making.mkdir()
        try:
            make(making)
            making.rename(entry)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` beside ``path`` and rename it there, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(content)
    beside.replace(path)
