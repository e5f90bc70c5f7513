"""Journal backend of the study for a single writer process: one JSON line per operation.

Optuna's file backend supports several writer processes. For each of about twenty lines per trial it creates and removes
a lock, opens the file, calls fsync and reads its own line back. A line truncated by a full disk makes its journal
permanently unreadable. A search has only one writer process.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

BLOCK_SIZE = 1 << 20  # bytes per read when lines are counted
# Lines with one of these keys complete a unit: a trial's record, or its end. They are followed by fsync, because lines
# in the page cache survive a killed process but not a power failure.
FSYNC_KEYS = frozenset({"user_attr", "state"})


class SingleWriterJournalBackend(BaseJournalBackend):
    """Journal backend for one process and one ``JournalStorage``.

    The format is that of Optuna's ``JournalFileBackend``, which can read the file. A truncated last line, after a full
    disk or a power failure, is removed: its operation was never confirmed.
    """

    def __init__(self, path: Path) -> None:
        """Open the journal, or create it."""
        self._path = path
        self._file = path.open("a+b", buffering=0)
        self._cache_offset, self._end = _count_complete_lines(path)
        self._file.truncate(self._end)
        self._cached_lines: list[bytes] = []  # written but not read yet

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append one line per log.

        Raises:
            OSError: the write failed, for example because the disk is full; the file is unchanged.
        """
        lines = [json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs]
        text = b"".join(lines)
        try:
            if self._file.write(text) != len(text):
                raise OSError("only a part of a line was written; free disk space")
            if any(FSYNC_KEYS & log.keys() for log in logs):
                os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._end)
            raise
        self._end += len(text)
        self._cached_lines += lines

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the logs starting at a number; earlier logs are dropped from memory."""
        if log_number_from < self._cache_offset:
            with self._path.open("rb") as file:
                yield from map(json.loads, itertools.islice(file, log_number_from, None))
            return
        self._cached_lines = self._cached_lines[log_number_from - self._cache_offset :]
        self._cache_offset = log_number_from
        yield from map(json.loads, self._cached_lines)


def _count_complete_lines(path: Path) -> tuple[int, int]:
    """Return the number of complete lines of a file and their size in bytes."""
    num_lines = end = offset = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_SIZE):
            num_lines += block.count(b"\n")
            end = offset + block.rfind(b"\n") + 1 if b"\n" in block else end
            offset += len(block)
    return num_lines, end
