"""Helpers for tests of tracking: clients that fail on purpose, writers on a test's outbox, and read access to runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuning.tracking.async_writer import AsyncWriter
from tuning.tracking.operations import Operation, StartRun

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "0"
PARENT_TAGS = {"mlflow.parentRunId": "parent"}
OUTBOX = Path("outbox.jsonl")  # in the test's working directory


class FlakyClient:
    """A client whose method ``name`` raises if ``should_fail(number of the call, arguments)`` is true."""

    def __init__(self, client: MlflowClient, name: str, should_fail: Callable[[int, tuple[Any, ...]], bool]) -> None:
        self._client = client
        self._name = name
        self._should_fail = should_fail
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name != self._name:
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(args)
            if self._should_fail(len(self.calls), args):
                raise ConnectionError("the server is unavailable")
            return method(*args, **kwargs)

        return call


class UnavailableClient(FlakyClient):
    """A client of a server that never answers."""

    def __init__(self, client: MlflowClient) -> None:
        super().__init__(client, "", lambda *_: True)

    def __getattr__(self, name: str) -> Any:
        def call(*_: Any, **__: Any) -> Any:
            raise ConnectionError("the server is unavailable")

        return call


def open_writer(client: MlflowClient | FlakyClient | None, outbox: Path = OUTBOX) -> AsyncWriter:
    """Return a writer on the test's outbox; an earlier writer must be closed."""
    return AsyncWriter(client, EXPERIMENT, PARENT_TAGS, outbox)  # type: ignore[arg-type]


def deliver(client: MlflowClient | FlakyClient, *operations: Operation) -> tuple[str, ...]:
    """Send all operations through a new writer and return the undelivered ones."""
    writer = open_writer(client)
    for operation in operations:
        writer.send(operation)
    return writer.close()


def start_run(uid: str = "uid0", **params: object) -> StartRun:
    return StartRun(uid, f"trial-{uid}", params, {"freezeline.trial_config": "{}"}, time_ms=1_000)


def metric_points(client: MlflowClient, run: Run, name: str) -> list[tuple[int, float, int]]:
    """Return the points of a metric as sorted (step, value, time in ms)."""
    history = client.get_metric_history(run.info.run_id, name)
    return sorted((point.step, point.value, point.timestamp) for point in history)


def only_run(client: MlflowClient) -> Run:
    (run,) = client.search_runs([EXPERIMENT])
    return run
