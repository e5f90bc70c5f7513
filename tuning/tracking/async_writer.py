"""The one writer: a thread that sends what trials report to MLflow, in batches, with our own timestamps.

An operation is written into the spool at once and delivered by the thread, so that a search never waits for the server
and a killed one loses nothing. A point carries the time at which it was measured, so that sending it again stores the
same point; a trial's run is looked up by its ``trial_uid`` before it is made, so that a repeat never doubles it.

While the server is away the thread tries again, with longer and longer pauses. What the server refuses for good (a
parameter that was logged with another value) is set aside, so that it holds nothing up. Both stay in the spool.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tuning.common.redaction import Redactor
from tuning.tracking.mlflow_sink import MlflowSink, is_permanent_error
from tuning.tracking.operations import LogEpoch, LogFile, LogText, Operation, describe_operation, redacted_operation
from tuning.tracking.outbox import Outbox

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH_WAIT_S = 2.0  # for more to come before a batch is sent: a call costs the same for one epoch and for four
MAX_RETRIES = 4  # at the end, before what is left is left to sync
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 5.0
MAX_BLOCKED_KEYS = 3  # that fail one after another: then the server is away, and others would only wait for it too
MAX_DOUBLINGS = 20  # of the pause: a server may be away for weeks
STALL_TIMEOUT_S = 60.0  # without a delivery, at the end: a call that never returns is not waited for


class QueuedOperation(NamedTuple):
    """An operation and its place in the spool; below zero where the spool could not take it."""

    offset: int
    operation: Operation

    @property
    def ordering_key(self) -> tuple[str, bool]:
        """What must keep its order: what one run is told; its files go beside it, for their store is another one."""
        return self.operation.trial_uid, isinstance(self.operation, LogText | LogFile)


class _FlushRequest:
    """Someone who waits until all that was sent before is delivered, or can't be."""

    def __init__(self, is_last: bool) -> None:
        self.is_last = is_last
        self.done = threading.Event()


class AsyncWriter:
    """Sends operations in their order from a thread of its own.

    Args:
        client: used by the writer's thread alone; None leaves everything in the spool, for ``sync``.
        experiment_id: where the trials' runs are made.
        parent_tags: tags that every trial's run carries, the parent's id (``mlflow.parentRunId``) among them.
        spool: the file of what is to be delivered; what an earlier writer left there is delivered first.

    Raises:
        TrackingError: another process has the spool open.
    """

    def __init__(
        self, client: MlflowClient | None, experiment_id: str, parent_tags: Mapping[str, str], outbox_file: Path
    ) -> None:
        self._outbox = Outbox(outbox_file)
        self._redact = Redactor()
        self._sink = MlflowSink(client, experiment_id, parent_tags, self._outbox) if client is not None else None
        self._pending = dict(self._outbox.pending)
        self._errors: dict[int, Exception] = {}
        self._rejected: set[int] = set()
        self._unwritten = itertools.count(-1, -1)
        self._queue: queue.SimpleQueue[QueuedOperation | _FlushRequest] = queue.SimpleQueue()
        self._last_s = time.monotonic()  # when something was delivered
        self._thread = threading.Thread(target=self._work, name="mlflow-writer", daemon=True)
        self._thread.start()

    def send(self, operation: Operation) -> None:
        """Write an operation down, secrets hidden; returns at once, and never raises for a disk or a server."""
        operation = redacted_operation(operation, self._redact)
        try:
            ticket = self._outbox.append(operation)
        except OSError:  # a full disk: it is delivered from memory
            ticket = next(self._unwritten)
        self._queue.put(QueuedOperation(ticket, operation))

    def flush(self) -> tuple[str, ...]:
        """Wait until all is delivered or the server has been away for some tries; return what ``close`` returns."""
        return self._wait_for(_FlushRequest(is_last=False))

    def close(self) -> tuple[str, ...]:
        """Flush and end; return a sentence for each operation that could not be delivered and stays in the spool."""
        undelivered = self._wait_for(_FlushRequest(is_last=True))
        if not self._thread.is_alive():  # else it holds a call that never returns, and the spool with it
            self._outbox.close()
        return undelivered

    @property
    def pending_count(self) -> int:
        """How many operations are not delivered, about; exact after ``flush`` and ``close``: those are left to sync."""
        return len(self._pending) + self._queue.qsize()

    def is_known(self, trial_uid: str) -> bool:
        """Return whether an earlier writer of the spool wrote down that the trial's run begins."""
        return trial_uid in self._outbox.starts

    def last_epoch(self, trial_uid: str) -> int:
        """Return the last epoch of the run that an earlier writer of the spool wrote down; 0 if none."""
        return self._outbox.epochs.get(trial_uid, 0)

    def has_ended(self, trial_uid: str) -> bool:
        """Return whether an earlier writer of the spool wrote down that the run has ended."""
        return trial_uid in self._outbox.ended

    def run_ids(self) -> Mapping[str, str]:
        """Return the MLflow run of each trial; complete once the writer is flushed."""
        return dict(self._outbox.run_ids)

    def _wait_for(self, flush: _FlushRequest) -> tuple[str, ...]:
        self._last_s = time.monotonic()
        self._queue.put(flush)
        while self._thread.is_alive() and not flush.done.wait(0.5):
            if time.monotonic() - self._last_s > STALL_TIMEOUT_S:
                break
        if flush.is_last and flush.done.is_set():
            self._thread.join()
        return self._undelivered()

    def _undelivered(self) -> tuple[str, ...]:
        if self._sink is None:
            return tuple(self._outbox.corrupt_lines)
        sentences = list(self._outbox.corrupt_lines)
        for ticket, operation in list(self._pending.items()):
            error = self._errors.get(ticket)
            why = type(error).__name__ if error else "not tried"
            lost = "" if ticket >= 0 else ", and the disk has no place to keep it"
            sentences.append(f"{describe_operation(operation)} ({why}{lost})")
        return tuple(sentences)

    def _work(self) -> None:
        flushes: list[_FlushRequest] = []
        fails = 0
        while True:
            taken = self._take(self._pause_s(fails, bool(flushes)))
            if taken:
                flushes += taken
                fails = 0  # whoever waits gets all the tries
            self._outbox.flush()
            delivered = self._deliver_due()
            fails = 0 if delivered or not self._deliverable() else fails + 1
            if flushes and (not self._deliverable() or fails >= MAX_RETRIES):
                self._keep_all()
                for flush in flushes:
                    flush.done.set()
                if any(flush.is_last for flush in flushes):
                    return
                flushes = []

    def _pause_s(self, fails: int, is_awaited: bool) -> float | None:
        """Return how long to gather before the next try; None: until something comes."""
        if fails:
            return min(FIRST_PAUSE_S * 2.0 ** min(fails - 1, MAX_DOUBLINGS), MAX_PAUSE_S)
        if self._deliverable():
            return FIRST_PAUSE_S
        return 0.0 if is_awaited else None

    def _take(self, pause_s: float | None) -> list[_FlushRequest]:
        """Gather what is sent until the pause is over or someone waits; return who waits."""
        ends_s = time.monotonic() + (BATCH_WAIT_S if pause_s is None else pause_s)
        flushes: list[_FlushRequest] = []
        is_first = pause_s is None
        while True:
            try:
                item = self._queue.get(timeout=None if is_first else max(0.0, ends_s - time.monotonic()))
            except queue.Empty:
                return flushes
            if is_first:
                is_first, ends_s = False, time.monotonic() + BATCH_WAIT_S
            if isinstance(item, _FlushRequest):
                flushes.append(item)
                ends_s = 0.0  # take what is there already
            else:
                self._pending[item.offset] = item.operation

    def _deliverable(self) -> list[QueuedOperation]:
        """Return what is to be tried, in order."""
        if self._sink is None:
            return []
        return [QueuedOperation(*item) for item in self._pending.items() if item[0] not in self._rejected]

    def _deliver_due(self) -> bool:
        """Try once what is due; return whether anything was delivered."""
        blocked: set[tuple[str, bool]] = set()
        delivered = False
        for batch in batches(self._deliverable()):
            if batch[0].ordering_key in blocked:
                continue
            if self._deliver(batch):
                delivered = True
                blocked.clear()  # the server is there after all
            elif batch[0].offset not in self._rejected:
                blocked.add(batch[0].ordering_key)
                if len(blocked) >= MAX_BLOCKED_KEYS:
                    break
        return delivered

    def _deliver(self, batch: Sequence[QueuedOperation]) -> bool:
        if self._sink is None:
            return False
        try:
            self._sink.apply([sent.operation for sent in batch])
        except Exception as error:  # a server can fail in any way; training must not
            if is_permanent_error(error) and len(batch) > 1:  # perhaps of one of them only
                return max([self._deliver([sent]) for sent in batch])
            self._errors |= dict.fromkeys((sent.offset for sent in batch), error)
            if is_permanent_error(error):
                self._rejected.update(sent.offset for sent in batch)
            return False
        self._outbox.delivered([sent.offset for sent in batch if sent.offset >= 0])
        for sent in batch:
            del self._pending[sent.offset]
        self._last_s = time.monotonic()
        return True

    def _keep_all(self) -> None:
        """Try again to write down what the spool could not take."""
        for ticket in [ticket for ticket in self._pending if ticket < 0]:
            try:
                kept = self._outbox.append(self._pending[ticket])
            except OSError:
                return
            self._pending[kept] = self._pending.pop(ticket)
            if ticket in self._errors:
                self._errors[kept] = self._errors.pop(ticket)


def batches(sent: Iterable[QueuedOperation]) -> Iterator[list[QueuedOperation]]:
    """Return what was sent in an order that keeps each run's own, epochs of one run gathered into one batch."""
    gathered: list[list[QueuedOperation]] = []
    open_epochs: dict[str, list[QueuedOperation]] = {}
    for one in sent:
        uid, is_file = one.ordering_key
        if isinstance(one.operation, LogEpoch) and uid in open_epochs:
            open_epochs[uid].append(one)
            continue
        gathered.append([one])
        if isinstance(one.operation, LogEpoch):
            open_epochs[uid] = gathered[-1]
        elif not is_file:
            open_epochs.pop(uid, None)
    return iter(gathered)
