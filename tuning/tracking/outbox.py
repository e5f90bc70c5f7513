"""The spool: a write-ahead file of what is to be delivered, so that a crash or a server that is away loses nothing.

Append-only lines of ``CRC32 JSON``. A line is an operation, the mark that operations were delivered, or the run that a
trial was given. What was appended survives a killed process at once, and a power cut after the next ``flush``. A last
line without an end (a crash while it was written) is cut off; a spoiled line is skipped and told.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from filelock import FileLock, Timeout

from data.errors import TrackingError
from tuning.tracking.operations import EndRun, LogEpoch, Operation, StartRun, from_fields, to_json

DELIVERED, RUN_OF, RUN_ID = "delivered", "run_of", "run_id"


class Outbox:
    """The spool at ``path``, in use by one process at a time.

    Attributes:
        pending: what is not delivered yet, by its ticket, in order.
        starts: how each trial's run was started, delivered or not.
        run_ids: the MLflow run of each trial that has one.
        epochs: the last epoch that was written down of each run.
        ended: the runs whose end was written down.
        spoiled: a sentence for each line that can't be read.
    """

    def __init__(self, path: Path) -> None:
        """Open the spool, made if need be.

        Raises:
            TrackingError: another process has it open.
        """
        self.path = path
        self.pending: dict[int, Operation] = {}
        self.starts: dict[str, StartRun] = {}
        self.run_ids: dict[str, str] = {}
        self.epochs: dict[str, int] = {}
        self.ended: set[str] = set()
        self.corrupt_lines: list[str] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        self._acquire_lock = FileLock(path.with_suffix(".lock"), thread_local=False)
        try:
            self._acquire_lock.acquire(timeout=0)
        except Timeout:
            raise TrackingError(
                f"a search's spool is open in one process at a time, but another has {path}; wait until its search ends"
            ) from None
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._end = self._read()

    def append(self, operation: Operation) -> int:
        """Write an operation down and return its ticket.

        Raises:
            OSError: it can't be written, as on a full disk; then nothing of it is there.
        """
        return self._append(to_json(operation))

    def delivered(self, tickets: Sequence[int]) -> None:
        """Mark operations as delivered; where that can't be written they are delivered again, to the same effect."""
        with contextlib.suppress(OSError):
            self._append(json.dumps({DELIVERED: list(tickets)}))

    def record_run(self, trial_uid: str, run_id: str) -> None:
        """Keep which run a trial was given; where that can't be written the run is found by its tag."""
        with contextlib.suppress(OSError):
            self._append(json.dumps({RUN_OF: trial_uid, RUN_ID: run_id}))

    def flush(self) -> None:
        """Wait until all that was appended would survive a power cut."""
        with contextlib.suppress(OSError):
            os.fdatasync(self._file)

    def close(self) -> None:
        """Let another process have it."""
        self.flush()
        os.close(self._file)
        self._acquire_lock.release()

    def _append(self, text: str) -> int:
        line = _line(text)
        with self._lock:
            ticket = self._end
            try:
                written = os.pwrite(self._file, line, ticket)
                if written < len(line):
                    raise OSError(f"{self.path} took {written} of {len(line)} bytes")
                self._end += len(line)
            except BaseException:  # a full disk, or Ctrl-C: half a line would spoil the next
                os.ftruncate(self._file, ticket)
                self._end = ticket
                raise
        return ticket

    def _read(self) -> int:
        """Take in what is there; return where the next line goes."""
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(self._file, whole)
        for number, (ticket, line) in enumerate(_lines(content[:whole]), start=1):
            try:
                self._take(ticket, _parsed(line))
            except (ValueError, KeyError, TypeError):
                self.corrupt_lines.append(f"line {number} of {self.path} is spoiled and was skipped")
        return whole

    def _take(self, ticket: int, fields: Mapping[str, object]) -> None:
        if DELIVERED in fields:
            for done in cast(list[int], fields[DELIVERED]):
                self.pending.pop(done, None)
        elif RUN_OF in fields:
            self.run_ids[str(fields[RUN_OF])] = str(fields[RUN_ID])
        else:
            self.pending[ticket] = operation = from_fields(fields)
            self._note(operation)

    def _note(self, operation: Operation) -> None:
        uid = operation.trial_uid
        match operation:
            case StartRun():
                self.starts[uid] = operation
                self.ended.discard(uid)
            case LogEpoch():
                self.epochs[uid] = max(operation.step, self.epochs.get(uid, 0))
            case EndRun():
                self.ended.add(uid)


def _line(text: str) -> bytes:
    body = text.encode()
    return b"%08x %b\n" % (zlib.crc32(body), body)


def _lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield where each line begins, and the line."""
    at = 0
    for line in content.splitlines(keepends=True):
        yield at, line
        at += len(line)


def _parsed(line: bytes) -> dict[str, object]:
    """Return what a line says; raise ValueError where its sum or its JSON is wrong."""
    total, _, body = line.rstrip(b"\n").partition(b" ")
    if int(total, 16) != zlib.crc32(body):
        raise ValueError("the sum is wrong")
    fields: dict[str, object] = json.loads(body)
    return fields
