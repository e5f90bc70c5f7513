"""The one writer: a thread that sends what trials report to MLflow, in batches, with our own timestamps.

A point carries the time at which it was measured, so that sending it again stores the same point; a trial's run is
looked up by its ``trial_uid`` before it is made, so that a repeat never doubles it. The search never waits for the
server: operations are queued, and what could not be delivered is told at the end.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

TRIAL_UID = "trial_uid"
LONGEST_PARAM = 6000  # characters; MLflow refuses a longer value
BATCH_WAIT_S = 0.5  # for more to come before a batch is sent
METRICS_PER_CALL = 1000  # MLflow's limit for one batch
TRIES = 4
FIRST_PAUSE_S = 0.5


def now_ms() -> int:
    """Return the time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class StartRun:
    """Make (or find again) the run of a trial."""

    trial_uid: str
    name: str
    params: Mapping[str, object]
    tags: Mapping[str, str]
    time_ms: int = field(default_factory=now_ms)


@dataclass(frozen=True)
class LogEpoch:
    """Metrics of one epoch, and parameters that became known with it."""

    trial_uid: str
    step: int
    metrics: Mapping[str, float]
    params: Mapping[str, object] = field(default_factory=dict)
    time_ms: int = field(default_factory=now_ms)


@dataclass(frozen=True)
class EndRun:
    """The final status of a trial's run, with tags that say why."""

    trial_uid: str
    status: str
    tags: Mapping[str, str]
    time_ms: int = field(default_factory=now_ms)


Operation = StartRun | LogEpoch | EndRun


class Writer:
    """Sends operations in their order from a thread of its own; ``close`` waits for all of them.

    Args:
        client: used by the writer's thread alone until ``close``.
        experiment_id: where the trials' runs are made.
        parent_tags: tags that every trial's run carries, the parent's id among them.
    """

    def __init__(self, client: MlflowClient, experiment_id: str, parent_tags: Mapping[str, str]) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._parent_tags = parent_tags
        self._starts: dict[str, StartRun] = {}
        self._run_ids: dict[str, str] = {}
        self._queue: queue.SimpleQueue[Operation | None] = queue.SimpleQueue()
        self._undelivered: list[str] = []
        self._is_away = False
        self._thread = threading.Thread(target=self._work, name="mlflow-writer", daemon=True)
        self._thread.start()

    def send(self, operation: Operation) -> None:
        """Queue an operation; returns at once."""
        self._queue.put(operation)

    def close(self) -> tuple[str, ...]:
        """Wait until all is sent; return a sentence for each operation that could not be delivered."""
        self._queue.put(None)
        self._thread.join()
        return tuple(self._undelivered)

    def run_ids(self) -> Mapping[str, str]:
        """Return the MLflow run of each trial; complete once the writer is closed."""
        return dict(self._run_ids)

    def _work(self) -> None:
        open_ = True
        while open_:
            operations = [self._queue.get()]
            if operations[-1] is not None:
                time.sleep(BATCH_WAIT_S if self._queue.empty() else 0)
            while not self._queue.empty():
                operations.append(self._queue.get())
            open_ = operations[-1] is not None
            for batch in batches([operation for operation in operations if operation is not None]):
                self._deliver(batch)

    def _deliver(self, batch: list[Operation]) -> None:
        pause_s = FIRST_PAUSE_S
        for left in reversed(range(1 if self._is_away else TRIES)):
            try:
                self._carry_out(batch)
                self._is_away = False
                return
            except Exception as error:  # a server can fail in any way; training must not
                if not left:
                    self._undelivered += [lost(operation, error) for operation in batch]
                    self._is_away = True  # until something gets through, one try each is enough
                    return
            time.sleep(pause_s)
            pause_s *= 2

    def _carry_out(self, batch: list[Operation]) -> None:
        first = batch[0]
        if isinstance(first, StartRun):
            self._starts[first.trial_uid] = first
            self._run_id(first.trial_uid)
        elif isinstance(first, LogEpoch):
            self._log([operation for operation in batch if isinstance(operation, LogEpoch)])
        else:
            run_id = self._run_id(first.trial_uid)
            for name, text in first.tags.items():
                self._client.set_tag(run_id, name, text)
            self._client.set_terminated(run_id, first.status, end_time=first.time_ms)

    def _run_id(self, trial_uid: str) -> str:
        """Return the trial's run; made now if it could not be made when the trial started."""
        if trial_uid not in self._run_ids:
            self._run_ids[trial_uid] = self._start(self._starts[trial_uid])
        return self._run_ids[trial_uid]

    def _start(self, operation: StartRun) -> str:
        from mlflow.entities import Param

        run_id = find_run(self._client, self._experiment_id, operation.trial_uid)
        if run_id is None:
            tags = {**self._parent_tags, **operation.tags, TRIAL_UID: operation.trial_uid}
            run = self._client.create_run(
                self._experiment_id, start_time=operation.time_ms, tags=tags, run_name=operation.name
            )
            run_id = run.info.run_id
        self._client.log_batch(run_id, params=[Param(*pair) for pair in texts(operation.params)])
        return str(run_id)

    def _log(self, epochs: list[LogEpoch]) -> None:
        from mlflow.entities import Metric, Param

        run_id = self._run_id(epochs[0].trial_uid)
        points = [
            Metric(name, value, epoch.time_ms, epoch.step)
            for epoch in epochs
            for name, value in epoch.metrics.items()
            if not math.isinf(value)  # stored as 1.8e308, which no plot survives
        ]
        params = {pair for epoch in epochs for pair in texts(epoch.params)}
        for start in range(0, len(points), METRICS_PER_CALL):
            self._client.log_batch(run_id, metrics=points[start : start + METRICS_PER_CALL])
        if params:
            self._client.log_batch(run_id, params=[Param(*pair) for pair in sorted(params)])


def batches(operations: list[Operation]) -> list[list[Operation]]:
    """Return the operations in an order that keeps each trial's own, epochs of one trial gathered into one batch."""
    gathered: list[list[Operation]] = []
    open_epochs: dict[str, list[Operation]] = {}
    for operation in operations:
        if isinstance(operation, LogEpoch) and operation.trial_uid in open_epochs:
            open_epochs[operation.trial_uid].append(operation)
            continue
        gathered.append([operation])
        if isinstance(operation, LogEpoch):
            open_epochs[operation.trial_uid] = gathered[-1]
        else:
            open_epochs.pop(operation.trial_uid, None)
    return gathered


def lost(operation: Operation, error: Exception) -> str:
    """Return what is said of an operation that could not be delivered."""
    what = f"epoch {operation.step}" if isinstance(operation, LogEpoch) else type(operation).__name__
    return f"{what} of trial {operation.trial_uid} ({type(error).__name__})"


def find_run(client: MlflowClient, experiment_id: str, trial_uid: str) -> str | None:
    """Return the id of the run that carries ``trial_uid``, or None."""
    runs = client.search_runs([experiment_id], f"tags.{TRIAL_UID} = '{trial_uid}'", max_results=1)
    return str(runs[0].info.run_id) if runs else None


def texts(params: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return parameters as MLflow stores them."""
    return [(name, str(value)[:LONGEST_PARAM]) for name, value in params.items()]
