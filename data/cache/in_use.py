"""Registry of the cache entries that living processes use."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from filelock import FileLock, Timeout


class InUseRegistry:
    """One file per process that uses the cache, locked while the process lives.

    Callers must hold the lock of the cache, so that no entry is deleted between its lookup and its registration.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process_id = 0
        self._file = folder
        self._lock: FileLock | None = None
        self._keys: set[str] = set()

    def add(self, key: str) -> None:
        """Register an entry as used by this process."""
        self._start()
        self._keys.add(key)
        self._file.write_text("\n".join(sorted(self._keys)))

    def release(self, key: str) -> None:
        """Register an entry as no longer used by this process."""
        self._start()
        self._keys.discard(key)
        self._file.write_text("\n".join(sorted(self._keys)))

    def all(self) -> set[str]:
        """Return the keys of the entries that any living process uses; files of dead processes are deleted."""
        is_started = self._process_id == os.getpid()
        keys = set(self._keys) if is_started else set()
        for file in self._folder.glob("*.txt"):
            if not (is_started and file == self._file):
                keys |= self._read(file)
        return keys

    def _start(self) -> None:
        if self._process_id == os.getpid():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        self._process_id, self._keys = os.getpid(), set()  # a forked process does not inherit the parent's entries
        self._file = self._folder / f"{os.getpid()}-{uuid.uuid4().hex}.txt"
        self._lock = FileLock(self._file.with_suffix(".lock"), thread_local=False)
        self._lock.acquire(timeout=0)

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
