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
from tuning.tracking.mlflow_sink import Delivery, is_refusal
from tuning.tracking.operations import LogEpoch, LogFile, LogText, Operation, redacted_operation, spoken
from tuning.tracking.outbox import Spool

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH_WAIT_S = 2.0  # for more to come before a batch is sent: a call costs the same for one epoch and for four
TRIES = 4  # at the end, before what is left is left to sync
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 5.0
LANES_TRIED = 3  # that fail one after another: then the server is away, and others would only wait for it too
MOST_DOUBLINGS = 20  # of the pause: a server may be away for weeks
STUCK_S = 60.0  # without a delivery, at the end: a call that never returns is not waited for


class Sent(NamedTuple):
    """An operation and its place in the spool; below zero where the spool could not take it."""

    ticket: int
    operation: Operation

    @property
    def lane(self) -> tuple[str, bool]:
        """What must keep its order: what one run is told; its files go beside it, for their store is another one."""
        return self.operation.trial_uid, isinstance(self.operation, LogText | LogFile)


class _Flush:
    """Someone who waits until all that was sent before is delivered, or can't be."""

    def __init__(self, is_last: bool) -> None:
        self.is_last = is_last
        self.over = threading.Event()


class Writer:
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
        self, client: MlflowClient | None, experiment_id: str, parent_tags: Mapping[str, str], spool: Path
    ) -> None:
        self._spool = Spool(spool)
        self._redact = Redactor()
        self._delivery = Delivery(client, experiment_id, parent_tags, self._spool) if client is not None else None
        self._pending = dict(self._spool.pending)
        self._errors: dict[int, Exception] = {}
        self._refused: set[int] = set()
        self._unspooled = itertools.count(-1, -1)
        self._queue: queue.SimpleQueue[Sent | _Flush] = queue.SimpleQueue()
        self._last_s = time.monotonic()  # when something was delivered
        self._thread = threading.Thread(target=self._work, name="mlflow-writer", daemon=True)
        self._thread.start()

    def send(self, operation: Operation) -> None:
        """Write an operation down, secrets hidden; returns at once, and never raises for a disk or a server."""
        operation = redacted_operation(operation, self._redact)
        try:
            ticket = self._spool.append(operation)
        except OSError:  # a full disk: it is delivered from memory
            ticket = next(self._unspooled)
        self._queue.put(Sent(ticket, operation))

    def flush(self) -> tuple[str, ...]:
        """Wait until all is delivered or the server has been away for some tries; return what ``close`` returns."""
        return self._wait_for(_Flush(is_last=False))

    def close(self) -> tuple[str, ...]:
        """Flush and end; return a sentence for each operation that could not be delivered and stays in the spool."""
        undelivered = self._wait_for(_Flush(is_last=True))
        if not self._thread.is_alive():  # else it holds a call that never returns, and the spool with it
            self._spool.close()
        return undelivered

    @property
    def waiting(self) -> int:
        """How many operations are not delivered, about; exact after ``flush`` and ``close``: those are left to sync."""
        return len(self._pending) + self._queue.qsize()

    def is_known(self, trial_uid: str) -> bool:
        """Return whether an earlier writer of the spool wrote down that the trial's run begins."""
        return trial_uid in self._spool.starts

    def last_epoch(self, trial_uid: str) -> int:
        """Return the last epoch of the run that an earlier writer of the spool wrote down; 0 if none."""
        return self._spool.epochs.get(trial_uid, 0)

    def has_ended(self, trial_uid: str) -> bool:
        """Return whether an earlier writer of the spool wrote down that the run has ended."""
        return trial_uid in self._spool.ended

    def run_ids(self) -> Mapping[str, str]:
        """Return the MLflow run of each trial; complete once the writer is flushed."""
        return dict(self._spool.run_ids)

    def _wait_for(self, flush: _Flush) -> tuple[str, ...]:
        self._last_s = time.monotonic()
        self._queue.put(flush)
        while self._thread.is_alive() and not flush.over.wait(0.5):
            if time.monotonic() - self._last_s > STUCK_S:
                break
        if flush.is_last and flush.over.is_set():
            self._thread.join()
        return self._undelivered()

    def _undelivered(self) -> tuple[str, ...]:
        if self._delivery is None:
            return tuple(self._spool.spoiled)
        sentences = list(self._spool.spoiled)
        for ticket, operation in list(self._pending.items()):
            error = self._errors.get(ticket)
            why = type(error).__name__ if error else "not tried"
            lost = "" if ticket >= 0 else ", and the disk has no place to keep it"
            sentences.append(f"{spoken(operation)} ({why}{lost})")
        return tuple(sentences)

    def _work(self) -> None:
        flushes: list[_Flush] = []
        fails = 0
        while True:
            taken = self._take(self._pause_s(fails, bool(flushes)))
            if taken:
                flushes += taken
                fails = 0  # whoever waits gets all the tries
            self._spool.flush()
            delivered = self._pass()
            fails = 0 if delivered or not self._due() else fails + 1
            if flushes and (not self._due() or fails >= TRIES):
                self._keep_all()
                for flush in flushes:
                    flush.over.set()
                if any(flush.is_last for flush in flushes):
                    return
                flushes = []

    def _pause_s(self, fails: int, is_awaited: bool) -> float | None:
        """Return how long to gather before the next try; None: until something comes."""
        if fails:
            return min(FIRST_PAUSE_S * 2.0 ** min(fails - 1, MOST_DOUBLINGS), LONGEST_PAUSE_S)
        if self._due():
            return FIRST_PAUSE_S
        return 0.0 if is_awaited else None

    def _take(self, pause_s: float | None) -> list[_Flush]:
        """Gather what is sent until the pause is over or someone waits; return who waits."""
        ends_s = time.monotonic() + (BATCH_WAIT_S if pause_s is None else pause_s)
        flushes: list[_Flush] = []
        is_first = pause_s is None
        while True:
            try:
                item = self._queue.get(timeout=None if is_first else max(0.0, ends_s - time.monotonic()))
            except queue.Empty:
                return flushes
            if is_first:
                is_first, ends_s = False, time.monotonic() + BATCH_WAIT_S
            if isinstance(item, _Flush):
                flushes.append(item)
                ends_s = 0.0  # take what is there already
            else:
                self._pending[item.ticket] = item.operation

    def _due(self) -> list[Sent]:
        """Return what is to be tried, in order."""
        if self._delivery is None:
            return []
        return [Sent(*item) for item in self._pending.items() if item[0] not in self._refused]

    def _pass(self) -> bool:
        """Try once what is due; return whether anything was delivered."""
        blocked: set[tuple[str, bool]] = set()
        delivered = False
        for batch in batches(self._due()):
            if batch[0].lane in blocked:
                continue
            if self._deliver(batch):
                delivered = True
                blocked.clear()  # the server is there after all
            elif batch[0].ticket not in self._refused:
                blocked.add(batch[0].lane)
                if len(blocked) >= LANES_TRIED:
                    break
        return delivered

    def _deliver(self, batch: Sequence[Sent]) -> bool:
        if self._delivery is None:
            return False
        try:
            self._delivery.carry_out([sent.operation for sent in batch])
        except Exception as error:  # a server can fail in any way; training must not
            if is_refusal(error) and len(batch) > 1:  # perhaps of one of them only
                return max([self._deliver([sent]) for sent in batch])
            self._errors |= dict.fromkeys((sent.ticket for sent in batch), error)
            if is_refusal(error):
                self._refused.update(sent.ticket for sent in batch)
            return False
        self._spool.delivered([sent.ticket for sent in batch if sent.ticket >= 0])
        for sent in batch:
            del self._pending[sent.ticket]
        self._last_s = time.monotonic()
        return True

    def _keep_all(self) -> None:
        """Try again to write down what the spool could not take."""
        for ticket in [ticket for ticket in self._pending if ticket < 0]:
            try:
                kept = self._spool.append(self._pending[ticket])
            except OSError:
                return
            self._pending[kept] = self._pending.pop(ticket)
            if ticket in self._errors:
                self._errors[kept] = self._errors.pop(ticket)


def batches(sent: Iterable[Sent]) -> Iterator[list[Sent]]:
    """Return what was sent in an order that keeps each run's own, epochs of one run gathered into one batch."""
    gathered: list[list[Sent]] = []
    open_epochs: dict[str, list[Sent]] = {}
    for one in sent:
        uid, is_file = one.lane
        if isinstance(one.operation, LogEpoch) and uid in open_epochs:
            open_epochs[uid].append(one)
            continue
        gathered.append([one])
        if isinstance(one.operation, LogEpoch):
            open_epochs[uid] = gathered[-1]
        elif not is_file:
            open_epochs.pop(uid, None)
    return iter(gathered)
