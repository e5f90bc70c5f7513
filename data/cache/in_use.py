"""Which entries of a store are being used by processes that are alive."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from filelock import FileLock, Timeout


class InUseRegistry:
    """One file for each process that uses a store, locked for as long as the process lives.

    Callers hold the store's own lock, so that no entry is taken away between being found and being leased.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = 0
        self._file = folder
        self._lock: FileLock | None = None
        self._keys: set[str] = set()

    def add(self, key: str) -> None:
        """Note that this process uses an entry."""
        self._begin()
        self._keys.add(key)
        self._file.write_text("\n".join(sorted(self._keys)))

    def release(self, key: str) -> None:
        """Note that this process no longer uses an entry."""
        self._begin()
        self._keys.discard(key)
        self._file.write_text("\n".join(sorted(self._keys)))

    def all(self) -> set[str]:
        """Return the entries in use by any living process; forget the dead ones."""
        ours = self._process == os.getpid()
        used = set(self._keys) if ours else set()
        for file in self._folder.glob("*.txt"):
            if not (ours and file == self._file):
                used |= self._read(file)
        return used

    def _begin(self) -> None:
        if self._process == os.getpid():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        self._process, self._keys = os.getpid(), set()  # after a fork, the parent's lease is not ours
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
