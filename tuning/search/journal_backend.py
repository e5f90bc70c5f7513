"""The file that the study is written to: Optuna's journal, a JSON line for each thing that happens.

Optuna's own file backend is made for many processes that write one journal: for each of the twenty lines that a trial
takes it makes and removes a lock, opens the file, waits for the disk and reads back what it wrote. A line that a full
disk cut short makes its journal unreadable for good. A search has one process that writes.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

BLOCK_SIZE = 1 << 20  # bytes read at once to count the lines
# Lines with one of these end something that is told: a trial's settings as a whole, how it ended. The disk is waited
# for then; a line that only the system holds outlives a killed process, and not a power cut.
FSYNC_KEYS = frozenset({"user_attr", "state"})


class SingleWriterJournalBackend(BaseJournalBackend):
    """Writes the lines of one process, and reads them for the one ``JournalStorage`` that it is given to.

    The format is that of Optuna's ``JournalFileBackend``, which can read the file. A last line that was cut short, by
    a full disk or a power cut, is taken off: what it says was never told to anyone.
    """

    def __init__(self, path: Path) -> None:
        """Open the journal, or begin it."""
        self._path = path
        self._file = path.open("a+b", buffering=0)
        self._cache_offset, self._end = _count_complete_lines(path)
        self._file.truncate(self._end)
        self._cached_lines: list[bytes] = []  # lines that were written and not read yet

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write a line for each log.

        Raises:
            OSError: the disk is full, say; the file is as it was.
        """
        lines = [json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs]
        text = b"".join(lines)
        try:
            if self._file.write(text) != len(text):
                raise OSError("the disk took a part of a line only")
            if any(FSYNC_KEYS & log.keys() for log in logs):
                os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._end)
            raise
        self._end += len(text)
        self._cached_lines += lines

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Return the logs from a number on; those before it aren't kept in memory."""
        if log_number_from < self._cache_offset:
            with self._path.open("rb") as file:
                yield from map(json.loads, itertools.islice(file, log_number_from, None))
            return
        self._cached_lines = self._cached_lines[log_number_from - self._cache_offset :]
        self._cache_offset = log_number_from
        yield from map(json.loads, self._cached_lines)


def _count_complete_lines(path: Path) -> tuple[int, int]:
    """Return how many whole lines a file has, and how many bytes they take."""
    count = end = read = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_SIZE):
            count += block.count(b"\n")
            end = read + block.rfind(b"\n") + 1 if b"\n" in block else end
            read += len(block)
    return count, end
