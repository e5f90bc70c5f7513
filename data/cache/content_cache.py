"""Content-addressed cache on disk, shared by all trials and searches.

An entry is a folder named by its key. It is created in a temporary folder and renamed while a lock for its key is
held: readers never see a partial entry, concurrent processes create an entry once, and the leftovers of a killed
process are deleted. An entry whose files do not match their checksums is recreated. Above the size limit, the least
recently used entries that no living process uses are evicted.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from data.cache.checksums import CHECKSUMS_FILE, FolderChecksums
from data.errors import SettingError
from data.home import cache_dir

WAIT_S = 30.0  # between two calls of ``on_wait``

DELETED_SUFFIX, PARTIAL_SUFFIX = ".deleted", ".partial"  # hidden folders: an entry being deleted, or being created
DEFAULT_LIMIT_GB = 20.0

MAX_VERIFIED_BYTES = 2**30  # up to this size, the content is compared even if all modification times are unchanged
_IN_USE: dict[Path, InUseRegistry] = {}  # by root; shared by all instances in this process
_VERIFIED: set[tuple[Path, int]] = set()  # entries whose content this process has verified


def size_limit_bytes() -> int:
    """Return the size limit of the cache: FREEZELINE_CACHE_GB, or 20 GB.

    Raises:
        SettingError: the variable is not a number above 0.
    """
    text = os.environ.get("FREEZELINE_CACHE_GB", "").strip() or str(DEFAULT_LIMIT_GB)
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = 0.0
    if not 0 < gigabytes < float("inf"):
        raise SettingError(f"FREEZELINE_CACHE_GB must be a number above 0, got {text!r}; set it to 20, for example")
    return int(gigabytes * 10**9)


def write_npy_header(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Write the header of a .npy file; the caller appends the rows as bytes.

    Not done with a memory map, because writing to one on a full disk kills the process.
    """
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


class InUseRegistry:
    """One file per process that uses the cache, locked while the process lives.

    Callers must hold the lock of the cache, so that no entry is deleted between its lookup and its registration.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / f"{os.getpid()}-{uuid.uuid4().hex}.txt"
        self._lock = FileLock(self._file.with_suffix(".lock"), thread_local=False)
        self._keys: set[str] = set()

    def add(self, key: str) -> None:
        """Register an entry as used by this process."""
        self._keys.add(key)
        self._save()

    def release(self, key: str) -> None:
        """Register an entry as no longer used by this process."""
        self._keys.discard(key)
        self._save()

    def all(self) -> set[str]:
        """Return the keys of the entries that any living process uses; files of dead processes are deleted."""
        others = [self._read(file) for file in self._folder.glob("*.txt") if file != self._file]
        return self._keys.union(*others)

    def _save(self) -> None:
        if not self._lock.is_locked:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        self._file.write_text("\n".join(sorted(self._keys)))

    @staticmethod
    def _read(file: Path) -> set[str]:
        lock = FileLock(file.with_suffix(".lock"))
        try:
            with lock.acquire(timeout=0):
                file.unlink(missing_ok=True)
        except Timeout:
            return set(file.read_text().split("\n")) if file.exists() else set()
        file.with_suffix(".lock").unlink(missing_ok=True)
        return set()


class CacheEntry(NamedTuple):
    """State of an entry: key, size, time of last use (Unix time in seconds), and whether a living process uses it."""

    key: str
    size_bytes: int
    last_used: float
    in_use: bool


class ContentCache:
    """Cache of folders under ``root``; each entry is either complete or absent."""

    def __init__(self, root: Path | None = None) -> None:
        """Open the cache in ``root``, by default in the cache folder."""
        self.root = root if root is not None else cache_dir()
        self.limit_bytes = size_limit_bytes()
        self._in_use = _IN_USE.setdefault(self.root, InUseRegistry(self.root / ".in_use"))

    def get_or_create(
        self, key: str, create: Callable[[Path], None], on_wait: Callable[[], None] = lambda: None
    ) -> Path:
        """Return the folder of an entry; create it first if it is missing or corrupt.

        If another process is creating the entry, wait for it. The entry is not evicted until this process ends or
        calls ``release``. The caller must not write into the folder.

        Args:
            key: relative path without hidden parts.
            create: fills an empty folder with the content of the entry. If it raises, no entry is created and the
                exception is re-raised.
            on_wait: called every ``WAIT_S`` while another process creates the entry.
        """
        entry = self.root / key
        self._mark_in_use(key)
        if self._is_intact(entry):
            return entry
        entry.parent.mkdir(parents=True, exist_ok=True)
        with _acquired(FileLock(entry.parent / f".{entry.name}.lock"), on_wait):
            if not self._is_intact(entry):
                self._delete(entry)
                self._create(entry, create)
        self.evict()
        return entry

    def get(self, key: str) -> Path | None:
        """Return the folder of an entry, or None if it is missing or corrupt; see ``get_or_create``."""
        entry = self.root / key
        if not (entry / CHECKSUMS_FILE).exists():
            return None
        self._mark_in_use(key)
        if self._is_intact(entry):
            return entry
        self.release(key)
        return None

    def release(self, key: str) -> None:
        """Allow the eviction of an entry that this process no longer uses."""
        with self._locked():
            self._in_use.release(key)

    def entries(self) -> list[CacheEntry]:
        """Return all entries, least recently used first."""
        with self._locked():
            return self._entries()

    def evict(self) -> None:
        """Delete leftovers of killed processes, then entries until the size limit is met."""
        with self._locked():
            self._delete_leftovers()
            entries = self._entries()
            excess_bytes = sum(entry.size_bytes for entry in entries) - self.limit_bytes
            for entry in entries:
                if excess_bytes > 0 and not entry.in_use:
                    self._delete(self.root / entry.key)
                    excess_bytes -= entry.size_bytes

    def clear(self, kind: str = "") -> list[str]:
        """Delete all entries that are not in use, or those of a kind (first part of the key); return their keys."""
        with self._locked():
            deleted = [
                entry.key
                for entry in self._entries()
                if not entry.in_use and (not kind or entry.key.split("/")[0] == kind)
            ]
            for key in deleted:
                self._delete(self.root / key)
        return deleted

    def _locked(self) -> FileLock:
        self.root.mkdir(parents=True, exist_ok=True)
        return FileLock(self.root / ".lock")

    def _mark_in_use(self, key: str) -> None:
        with self._locked():
            self._in_use.add(key)

    def _entries(self) -> list[CacheEntry]:
        in_use = self._in_use.all()
        entries = []
        for folder in self._folders(self.root):
            checksums = FolderChecksums.load(folder)
            key = folder.relative_to(self.root).as_posix()
            if checksums and not folder.name.startswith("."):
                entries.append(CacheEntry(key, checksums.size_bytes, checksums.last_used, key in in_use))
        return sorted(entries, key=lambda entry: entry.last_used)

    def _folders(self, parent: Path) -> Iterator[Path]:
        """Yield the folders of entries, including hidden partial and deleted ones."""
        for folder in parent.iterdir():
            if (folder / CHECKSUMS_FILE).exists() or folder.suffix in (DELETED_SUFFIX, PARTIAL_SUFFIX):
                yield folder
            elif folder.is_dir() and not folder.name.startswith("."):
                yield from self._folders(folder)

    def _delete_leftovers(self) -> None:
        for folder in self._folders(self.root):
            if folder.suffix == DELETED_SUFFIX:
                shutil.rmtree(folder, ignore_errors=True)
            elif folder.suffix == PARTIAL_SUFFIX and folder.name.startswith("."):
                try:
                    with FileLock(folder.with_suffix(".lock"), timeout=0):
                        shutil.rmtree(folder, ignore_errors=True)
                except Timeout:  # another process is creating it
                    pass

    @staticmethod
    def _is_intact(entry: Path) -> bool:
        """Return whether an entry matches its checksums, and mark it as used.

        The content is compared once per process, up to ``MAX_VERIFIED_BYTES``.
        """
        checksums = FolderChecksums.load(entry)
        if not checksums:
            return False
        is_small = checksums.size_bytes <= MAX_VERIFIED_BYTES
        is_intact = checksums.verify(content=is_small and checksums.identity not in _VERIFIED)
        if is_intact:
            _VERIFIED.add(checksums.identity)
            checksums.mark_used()
        return is_intact

    @staticmethod
    def _delete(entry: Path) -> None:
        """Rename an entry, so that it disappears atomically, then delete it; files that are open stay readable."""
        if entry.exists():
            deleted = entry.parent / f".{uuid.uuid4().hex}{DELETED_SUFFIX}"
            entry.rename(deleted)
            shutil.rmtree(deleted, ignore_errors=True)

    @staticmethod
    def _create(entry: Path, create: Callable[[Path], None]) -> None:
        partial = entry.parent / f".{entry.name}{PARTIAL_SUFFIX}"
        shutil.rmtree(partial, ignore_errors=True)  # left by a killed process: this process holds the lock
        partial.mkdir()
        try:
            create(partial)
            FolderChecksums.from_folder(partial).save()
            partial.rename(entry)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


@contextmanager
def _acquired(lock: FileLock, on_wait: Callable[[], None]) -> Iterator[None]:
    """Context manager: hold the lock; call ``on_wait`` every ``WAIT_S`` until it is acquired."""
    while not lock.is_locked:
        try:
            lock.acquire(timeout=WAIT_S)
        except Timeout:
            on_wait()
    try:
        yield
    finally:
        lock.release()
