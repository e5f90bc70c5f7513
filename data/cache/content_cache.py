"""One content-addressed store on disk, shared by all trials and by later searches.

An entry is a folder under its key. It is made in a folder beside and renamed, under a lock for its key, so a
reader sees all of it or none, two makers make it once, and what a killed maker left is thrown away. An entry
whose files no longer match their checksums is made anew. Above the size limit, entries that no living process
uses go, the least recently used first.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from data.cache.checksums import CHECKSUMS_FILE as SUMS
from data.cache.checksums import FolderChecksums
from data.cache.in_use import InUseRegistry
from data.errors import SettingError
from data.home import state_dir

KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
DELETED_SUFFIX, PARTIAL_SUFFIX = ".gone", ".making"  # suffixes of hidden folders that are no entry any more, or not yet
DEFAULT_LIMIT_GB = 20.0

MAX_VERIFIED_BYTES = 2**30  # up to this size, content is compared even where every file's time says it is untouched
_IN_USE: dict[Path, InUseRegistry] = {}  # by root: one for the whole process
_VERIFIED: set[tuple[Path, int]] = set()  # sums that this process has found to hold


def size_limit_bytes() -> int:
    """Return the size that the store is kept below: FREEZELINE_CACHE_GB, or 20 GB.

    Raises:
        SettingError: the variable is no number above 0.
    """
    text = os.environ.get("FREEZELINE_CACHE_GB", "").strip() or str(DEFAULT_LIMIT_GB)
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = 0.0
    if not 0 < gigabytes < float("inf"):
        raise SettingError(f"FREEZELINE_CACHE_GB must be a number above 0, got {text!r}; set it to 20, say")
    return int(gigabytes * 10**9)


def write_npy_header(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Write the head of a .npy file; its rows follow, as bytes, in order.

    A memory map would be shorter, but writing into one on a full disk kills the process.
    """
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


class CacheEntry(NamedTuple):
    """What is known about an entry: its key, size, when it was last used (s since 1970), and if it is now."""

    key: str
    size_bytes: int
    last_used: float
    in_use: bool


class ContentCache:
    """Entries under ``root``, each a folder that is complete or absent."""

    def __init__(self, root: Path | None = None, limit: int | None = None) -> None:
        """Open the store at ``root``, by default under ``home()``, kept below ``limit`` bytes (``limit_bytes()``)."""
        self.root = root if root is not None else state_dir() / "cache"
        self.limit = limit if limit is not None else size_limit_bytes()
        self._in_use = _IN_USE.setdefault(self.root, InUseRegistry(self.root / ".leases"))

    def get_or_create(self, key: str, create: Callable[[Path], None]) -> Path:
        """Return the entry's folder; where it is absent or spoiled, ``make(folder)`` fills an empty folder first.

        While one process makes an entry, others wait for it. What ``make`` raises is passed on and leaves no entry.
        The entry stays until this process ends or calls ``release``. Nothing may write into it.

        Raises:
            ValueError: the key is no relative path of letters, digits and ``_ . -``.
        """
        entry = self._entry(key)
        self._mark_in_use(key)
        if self._is_intact(entry):
            return entry
        entry.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(entry.parent / f".{entry.name}.lock"):
            if not self._is_intact(entry):
                self._remove(entry)
                self._create(entry, create)
        self.evict()
        return entry

    def get(self, key: str) -> Path | None:
        """Return the entry's folder, None where it is absent or spoiled; it stays as with ``get_or_make``.

        Raises:
            ValueError: as ``get_or_make``.
        """
        entry = self._entry(key)
        if not self.has(key):
            return None
        self._mark_in_use(key)
        if self._is_intact(entry):
            return entry
        self.release(key)
        return None

    def has(self, key: str) -> bool:
        """Return whether an entry is there, without looking into it."""
        return (self._entry(key) / SUMS).exists()

    def release(self, key: str) -> None:
        """Say that this process no longer uses an entry, so that it may go."""
        with self._locked():
            self._in_use.release(key)

    def entries(self) -> list[CacheEntry]:
        """Return what is in the store, least recently used first."""
        with self._locked():
            return self._entries()

    def size_bytes(self) -> int:
        """Return the size of all entries together."""
        return sum(entry.size_bytes for entry in self.entries())

    def evict(self) -> list[str]:
        """Throw out entries until the store is within its limit, and what killed processes left; return the keys."""
        with self._locked():
            self._sweep()
            entries = self._entries()
            over = sum(entry.size_bytes for entry in entries) - self.limit
            gone: list[str] = []
            for entry in entries:
                if over > 0 and not entry.in_use:
                    self._remove(self.root / entry.key)
                    over -= entry.size_bytes
                    gone.append(entry.key)
        return gone

    def clear(self, kind: str = "") -> list[str]:
        """Throw out every entry that is not in use (of one kind: the first part of the key); return their keys."""
        with self._locked():
            gone = [
                entry.key
                for entry in self._entries()
                if not entry.in_use and (not kind or entry.key.split("/")[0] == kind)
            ]
            for key in gone:
                self._remove(self.root / key)
        return gone

    def verify(self) -> list[str]:
        """Return the keys of entries whose content no longer matches its checksums; reads everything."""
        sums = {entry.key: FolderChecksums.read(self.root / entry.key) for entry in self.entries()}
        return [key for key, kept in sums.items() if not (kept and kept.verify(content=True))]

    def _entry(self, key: str) -> Path:
        if not KEY.fullmatch(key):
            raise ValueError(f"a store's key must be letters, digits, '_', '.', '-' between '/', got {key!r}")
        return self.root / key

    def _locked(self) -> FileLock:
        self.root.mkdir(parents=True, exist_ok=True)
        return FileLock(self.root / ".lock")

    def _mark_in_use(self, key: str) -> None:
        with self._locked():
            self._in_use.add(key)

    def _entries(self) -> list[CacheEntry]:
        in_use = self._in_use.all()
        found = []
        for folder in self._folders(self.root):
            sums = FolderChecksums.read(folder)
            key = folder.relative_to(self.root).as_posix()
            if sums and not folder.name.startswith("."):
                found.append(CacheEntry(key, sums.size, sums.last_used, key in in_use))
        return sorted(found, key=lambda entry: entry.last_used)

    def _folders(self, above: Path) -> Iterator[Path]:
        """Yield the folders of entries, and of what is no longer or not yet one (hidden)."""
        for folder in above.iterdir():
            if (folder / SUMS).exists() or folder.suffix in (DELETED_SUFFIX, PARTIAL_SUFFIX):
                yield folder
            elif folder.is_dir() and not folder.name.startswith("."):
                yield from self._folders(folder)

    def _sweep(self) -> None:
        for folder in self._folders(self.root):
            if folder.suffix == DELETED_SUFFIX:
                shutil.rmtree(folder, ignore_errors=True)
            elif folder.suffix == PARTIAL_SUFFIX and folder.name.startswith("."):
                try:
                    with FileLock(folder.with_suffix(".lock"), timeout=0):
                        shutil.rmtree(folder, ignore_errors=True)
                except Timeout:  # it is being made
                    pass

    @staticmethod
    def _is_intact(entry: Path) -> bool:
        """Return whether an entry is as it was made; its content is compared once in a process, if not too large."""
        sums = FolderChecksums.read(entry)
        if not sums:
            return False
        whole = sums.verify(content=sums.size <= MAX_VERIFIED_BYTES and sums.identity not in _VERIFIED)
        if whole:
            _VERIFIED.add(sums.identity)
            sums.mark_used()
        return whole

    @staticmethod
    def _remove(entry: Path) -> None:
        """Take an entry away at once, and then delete it: whoever has its files open keeps them."""
        if entry.exists():
            gone = entry.parent / f".{uuid.uuid4().hex}{DELETED_SUFFIX}"
            entry.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    @staticmethod
    def _create(entry: Path, make: Callable[[Path], None]) -> None:
        making = entry.parent / f".{entry.name}{PARTIAL_SUFFIX}"
        shutil.rmtree(making, ignore_errors=True)  # of a maker that was killed: we hold its lock
        making.mkdir()
        try:
            make(making)
            FolderChecksums.of(making).save()
            making.rename(entry)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
