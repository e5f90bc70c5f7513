"""Transactional outbox: an append-only file of the operations to deliver, which survives crashes and server outages.

Each line is ``CRC32 JSON``: an operation, a mark that operations were delivered, or the run id of a trial. An appended
line survives a killed process immediately, and a power failure after the next ``flush``. An incomplete last line (the
process was killed during the write) is truncated; a corrupt line is skipped and reported.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from filelock import FileLock, Timeout

from data.errors import TrackingError
from tuning.tracking.operations import EndRun, LogEpoch, Operation, StartRun, from_fields, to_json

DELIVERED, RUN_OF, RUN_ID = "delivered", "run_of", "run_id"  # keys of the lines that are no operations


class Outbox:
    """The outbox at ``path``; at most one process has it open.

    Attributes:
        pending: operations that were undelivered when the file was opened, by their byte offset in it, in order.
        starts: the start of each trial's run, delivered or not.
        run_ids: the MLflow run id of each trial that has a run.
        last_epochs: the last epoch of each run that was recorded before the file was opened.
        ended_uids: trials whose end was recorded before the file was opened.
        corrupt_lines: a message for each line that cannot be read.
    """

    def __init__(self, path: Path) -> None:
        """Open the outbox; create the file if it does not exist.

        Raises:
            TrackingError: another process has it open.
        """
        self.path = path
        self.pending: dict[int, Operation] = {}
        self.starts: dict[str, StartRun] = {}
        self.run_ids: dict[str, str] = {}
        self.last_epochs: dict[str, int] = {}
        self.ended_uids: set[str] = set()
        self.corrupt_lines: list[str] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file_lock = FileLock(path.with_suffix(".lock"), thread_local=False)
        try:
            self._file_lock.acquire(timeout=0)
        except Timeout:
            raise TrackingError(
                f"an outbox can be open in one process only, but another process has {path} open; "
                "wait until its search ends"
            ) from None
        self._append_lock = threading.Lock()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._end_offset = self._load()

    def append(self, operation: Operation) -> int:
        """Append an operation and return its offset.

        Raises:
            OSError: the disk is full or fails; nothing of the operation is in the file.
        """
        return self._append(to_json(operation))

    def mark_delivered(self, offsets: Sequence[int]) -> None:
        """Mark operations as delivered; if the mark cannot be written, they are delivered a second time."""
        with contextlib.suppress(OSError):
            self._append(json.dumps({DELIVERED: list(offsets)}))

    def record_run(self, trial_uid: str, run_id: str) -> None:
        """Record the run id of a trial; if it cannot be written, the run is found by its tag."""
        with contextlib.suppress(OSError):
            self._append(json.dumps({RUN_OF: trial_uid, RUN_ID: run_id}))

    def flush(self) -> None:
        """Sync the file to disk, so that all appended lines survive a power failure."""
        with contextlib.suppress(OSError):
            os.fdatasync(self._fd)

    def close(self) -> None:
        """Flush, close the file and release the lock."""
        self.flush()
        os.close(self._fd)
        self._file_lock.release()

    def _append(self, text: str) -> int:
        line = _format_line(text)
        with self._append_lock:
            offset = self._end_offset
            try:
                written = os.pwrite(self._fd, line, offset)
                if written < len(line):
                    raise OSError(f"{self.path} took {written} of {len(line)} bytes")
                self._end_offset += len(line)
            except BaseException:  # a full disk or Ctrl-C: a partial line would corrupt the next one
                os.ftruncate(self._fd, offset)
                self._end_offset = offset
                raise
        return offset

    def _load(self) -> int:
        """Read the existing lines; return the offset of the next line."""
        content = self.path.read_bytes()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            os.ftruncate(self._fd, end)
        offset = 0
        for number, line in enumerate(content[:end].splitlines(keepends=True), start=1):
            try:
                self._apply(offset, _parse_line(line))
            except (ValueError, KeyError, TypeError):
                self.corrupt_lines.append(f"line {number} of {self.path} is corrupt and was skipped")
            offset += len(line)
        return end

    def _apply(self, offset: int, fields: Mapping[str, object]) -> None:
        if DELIVERED in fields:
            for delivered in cast(list[int], fields[DELIVERED]):
                self.pending.pop(delivered, None)
        elif RUN_OF in fields:
            self.run_ids[str(fields[RUN_OF])] = str(fields[RUN_ID])
        else:
            self.pending[offset] = operation = from_fields(fields)
            uid = operation.trial_uid
            match operation:
                case StartRun():
                    self.starts[uid] = operation
                    self.ended_uids.discard(uid)
                case LogEpoch():
                    self.last_epochs[uid] = max(operation.step, self.last_epochs.get(uid, 0))
                case EndRun():
                    self.ended_uids.add(uid)


def _format_line(text: str) -> bytes:
    body = text.encode()
    return b"%08x %b\n" % (zlib.crc32(body), body)


def _parse_line(line: bytes) -> dict[str, object]:
    """Return the fields of a line; raise ValueError if its checksum or its JSON is wrong."""
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    if int(checksum, 16) != zlib.crc32(body):
        raise ValueError("the checksum is wrong")
    fields: dict[str, object] = json.loads(body)
    return fields
