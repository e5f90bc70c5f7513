"""Asynchronous MLflow writer: a thread that delivers operations in batches, each with its own timestamp.

``send`` appends the operation to the outbox and returns; the thread delivers it. A search therefore never waits for the
server, and a killed search loses nothing. Delivery is idempotent: a metric carries the time of its measurement, so a
second delivery stores the same point, and a trial's run is looked up by ``freezeline.trial_uid`` before it is created.

While the server is unavailable the thread retries with increasing pauses. An operation that the server rejects
permanently (for example a parameter that was logged with another value) is skipped, so that it does not block others.
Undelivered and rejected operations both stay in the outbox.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tuning.common.redaction import Redactor
from tuning.tracking.mlflow_sink import MlflowSink, is_permanent_error
from tuning.tracking.operations import LogEpoch, LogFile, LogText, Operation, describe_operation, redacted_operation
from tuning.tracking.outbox import Outbox

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH_WAIT_S = 2.0  # before a batch is sent, to collect more: a call costs the same for one epoch and for four
MAX_RETRIES = 4  # per flush; the rest is delivered by sync
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 5.0
MAX_BLOCKED_KEYS = 3  # consecutive failures; then the server counts as unavailable and the attempt ends
STALL_TIMEOUT_S = 60.0  # without a delivery while flushing: the client call is assumed to hang


class QueuedOperation(NamedTuple):
    """An operation and its offset in the outbox; negative if it could not be written there."""

    offset: int
    operation: Operation

    @property
    def ordering_key(self) -> tuple[str, bool]:
        """Operations with the same key keep their order: those of one run, separately for files and all others."""
        return self.operation.trial_uid, isinstance(self.operation, LogText | LogFile)


class _FlushRequest:
    """A caller that waits until all earlier operations are delivered or given up."""

    def __init__(self, is_last: bool) -> None:
        self.is_last = is_last
        self.done = threading.Event()


class AsyncWriter:
    """Delivers operations to MLflow in their order, in a background thread.

    Args:
        client: used by the writer's thread only; None leaves every operation in the outbox, for ``sync``.
        experiment_id: experiment in which the trials' runs are created.
        parent_tags: tags of every trial's run, including the id of the parent run (``mlflow.parentRunId``).
        outbox_file: file of the outbox; operations that an earlier writer left there are delivered first.

    Attributes:
        outbox: knows what an earlier writer recorded, and the MLflow run id of each trial; these are complete after
            ``flush``.

    Raises:
        TrackingError: another process has the outbox open.
    """

    def __init__(
        self, client: MlflowClient | None, experiment_id: str, parent_tags: Mapping[str, str], outbox_file: Path
    ) -> None:
        self.outbox = Outbox(outbox_file)
        self._redact = Redactor()
        self._sink = MlflowSink(client, experiment_id, parent_tags, self.outbox) if client is not None else None
        self._pending = dict(self.outbox.pending)
        self._errors: dict[int, Exception] = {}
        self._rejected: set[int] = set()
        self._memory_offsets = itertools.count(-1, -1)
        self._queue: queue.SimpleQueue[QueuedOperation | _FlushRequest] = queue.SimpleQueue()
        self._last_delivery_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="mlflow-writer", daemon=True)
        self._thread.start()

    def send(self, operation: Operation) -> None:
        """Append an operation to the outbox, with secrets hidden; returns immediately and raises no I/O error."""
        operation = redacted_operation(operation, self._redact)
        try:
            offset = self.outbox.append(operation)
        except OSError:  # a full disk: it is delivered from memory
            offset = next(self._memory_offsets)
        self._queue.put(QueuedOperation(offset, operation))

    def flush(self) -> tuple[str, ...]:
        """Wait until every operation is delivered or ``MAX_RETRIES`` attempts failed; return the undelivered ones."""
        return self._wait_for(_FlushRequest(is_last=False))

    def close(self) -> tuple[str, ...]:
        """Flush and stop the thread; return a description of each operation that was not delivered."""
        undelivered = self._wait_for(_FlushRequest(is_last=True))
        if not self._thread.is_alive():  # if it is alive, a client call hangs, and the outbox is still in use
            self.outbox.close()
        return undelivered

    @property
    def pending_count(self) -> int:
        """Approximate number of undelivered operations; exact after ``flush`` and ``close``."""
        return len(self._pending) + self._queue.qsize()

    def _wait_for(self, flush: _FlushRequest) -> tuple[str, ...]:
        self._last_delivery_s = time.monotonic()
        self._queue.put(flush)
        while self._thread.is_alive() and not flush.done.wait(0.5):
            if time.monotonic() - self._last_delivery_s > STALL_TIMEOUT_S:
                break
        if flush.is_last and flush.done.is_set():
            self._thread.join()
        return self._undelivered()

    def _undelivered(self) -> tuple[str, ...]:
        if self._sink is None:
            return tuple(self.outbox.corrupt_lines)
        descriptions = list(self.outbox.corrupt_lines)
        for offset, operation in list(self._pending.items()):
            error = self._errors.get(offset)
            reason = type(error).__name__ if error else "not tried"
            disk_full = "" if offset >= 0 else ", and the disk is too full to store it"
            descriptions.append(f"{describe_operation(operation)} ({reason}{disk_full})")
        return tuple(descriptions)

    def _run(self) -> None:
        flushes: list[_FlushRequest] = []
        num_failures = 0
        while True:
            new_flushes = self._collect(self._pause_s(num_failures, bool(flushes)))
            if new_flushes:
                flushes += new_flushes
                num_failures = 0  # every flush gets MAX_RETRIES attempts
            self.outbox.flush()
            delivered = self._deliver_due()
            num_failures = 0 if delivered or not self._deliverable() else num_failures + 1
            if flushes and (not self._deliverable() or num_failures >= MAX_RETRIES):
                self._append_from_memory()
                for flush in flushes:
                    flush.done.set()
                if any(flush.is_last for flush in flushes):
                    return
                flushes = []

    def _pause_s(self, num_failures: int, is_flushing: bool) -> float | None:
        """Return the seconds to collect operations before the next attempt; None: wait for the next operation."""
        if num_failures:
            return min(FIRST_PAUSE_S * num_failures, MAX_PAUSE_S)
        if self._deliverable():
            return FIRST_PAUSE_S
        return 0.0 if is_flushing else None

    def _collect(self, pause_s: float | None) -> list[_FlushRequest]:
        """Move queued operations to pending until the pause is over or a flush arrives; return the flushes."""
        deadline_s = time.monotonic() + (BATCH_WAIT_S if pause_s is None else pause_s)
        flushes: list[_FlushRequest] = []
        is_first = pause_s is None
        while True:
            try:
                item = self._queue.get(timeout=None if is_first else max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                return flushes
            if is_first:
                is_first, deadline_s = False, time.monotonic() + BATCH_WAIT_S
            if isinstance(item, _FlushRequest):
                flushes.append(item)
                deadline_s = 0.0  # take only what is already queued
            else:
                self._pending[item.offset] = item.operation

    def _deliverable(self) -> list[QueuedOperation]:
        """Return the pending operations that the server has not rejected, in order."""
        if self._sink is None:
            return []
        return [QueuedOperation(*item) for item in self._pending.items() if item[0] not in self._rejected]

    def _deliver_due(self) -> bool:
        """Try each deliverable operation once; return whether any was delivered."""
        blocked_keys: set[tuple[str, bool]] = set()
        any_delivered = False
        for batch in to_batches(self._deliverable()):
            if batch[0].ordering_key in blocked_keys:
                continue
            if self._deliver(batch):
                any_delivered = True
                blocked_keys.clear()  # the server is available again
            elif batch[0].offset not in self._rejected:
                blocked_keys.add(batch[0].ordering_key)
                if len(blocked_keys) >= MAX_BLOCKED_KEYS:
                    break
        return any_delivered

    def _deliver(self, batch: Sequence[QueuedOperation]) -> bool:
        if self._sink is None:
            return False
        try:
            self._sink.apply([queued.operation for queued in batch])
        except Exception as error:  # any error of the server or client; training must continue
            if is_permanent_error(error) and len(batch) > 1:  # possibly caused by one operation of the batch
                return max([self._deliver([queued]) for queued in batch])
            self._errors |= dict.fromkeys((queued.offset for queued in batch), error)
            if is_permanent_error(error):
                self._rejected.update(queued.offset for queued in batch)
            return False
        self.outbox.mark_delivered([queued.offset for queued in batch if queued.offset >= 0])
        for queued in batch:
            del self._pending[queued.offset]
        self._last_delivery_s = time.monotonic()
        return True

    def _append_from_memory(self) -> None:
        """Retry to append the operations that could not be written to the outbox."""
        for memory_offset in [offset for offset in self._pending if offset < 0]:
            try:
                offset = self.outbox.append(self._pending[memory_offset])
            except OSError:
                return
            self._pending[offset] = self._pending.pop(memory_offset)
            if memory_offset in self._errors:
                self._errors[offset] = self._errors.pop(memory_offset)


def to_batches(operations: Iterable[QueuedOperation]) -> list[list[QueuedOperation]]:
    """Group operations into batches: the epochs of one run share a batch; the order within each run is kept."""
    batches: list[list[QueuedOperation]] = []
    open_epochs: dict[str, list[QueuedOperation]] = {}
    for queued in operations:
        uid, is_file = queued.ordering_key
        if isinstance(queued.operation, LogEpoch) and uid in open_epochs:
            open_epochs[uid].append(queued)
            continue
        batches.append([queued])
        if isinstance(queued.operation, LogEpoch):
            open_epochs[uid] = batches[-1]
        elif not is_file:
            open_epochs.pop(uid, None)
    return batches
