"""Async writer and outbox: an unavailable server, a full disk and a killed process lose nothing."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.tuning.mlflow_helpers import (
    EXPERIMENT,
    OUTBOX,
    FlakyClient,
    UnavailableClient,
    deliver,
    metric_points,
    only_run,
    open_writer,
    start_run,
)
from tuning.tracking.async_writer import MAX_RETRIES
from tuning.tracking.environment import REPOSITORY
from tuning.tracking.operations import EndRun, LogEpoch, LogFile, LogText

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = pytest.mark.usefixtures("no_pauses")


def test_the_next_writer_delivers_in_order_what_an_unavailable_server_missed(client: MlflowClient) -> None:
    epochs = [LogEpoch("uid0", step, {"loss": 1 / step}, {"blocks": 18}, time_ms=step) for step in (1, 2, 3)]
    operations = [start_run(lr=0.1), *epochs, EndRun("uid0", "FINISHED", {"reason": "done"}, time_ms=9)]
    assert len(deliver(UnavailableClient(client), *operations)) == 5
    assert client.search_runs([EXPERIMENT]) == []
    assert deliver(client) == ()
    run = only_run(client)
    assert metric_points(client, run, "loss") == [(step, 1 / step, step) for step in (1, 2, 3)]
    assert (run.info.status, run.info.end_time, run.data.params) == ("FINISHED", 9, {"lr": "0.1", "blocks": "18"})


def test_delivered_operations_are_not_sent_again(client: MlflowClient) -> None:
    deliver(client, start_run(), LogEpoch("uid0", 1, {"loss": 0.5}))
    counting = FlakyClient(client, "log_batch", lambda *_: False)
    assert deliver(counting) == ()
    assert counting.calls == []


def test_a_server_that_recovers_during_the_search_gets_every_operation(client: MlflowClient) -> None:
    flaky = FlakyClient(client, "create_run", lambda call, _: call <= 3 * MAX_RETRIES)
    writer = open_writer(flaky)
    writer.send(start_run())
    writer.send(LogEpoch("uid0", 1, {"loss": 0.5}, time_ms=7))
    deadline_s = time.monotonic() + 20
    while len(flaky.calls) <= 3 * MAX_RETRIES and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert writer.close() == ()
    assert metric_points(client, only_run(client), "loss") == [(1, 0.5, 7)]


def test_a_later_process_continues_the_run_of_a_trial(client: MlflowClient) -> None:
    deliver(client, start_run(lr=0.1), EndRun("uid0", "KILLED", {"reason": "stopped"}))
    writer = open_writer(client)
    assert writer.outbox.run_ids == {"uid0": only_run(client).info.run_id}
    writer.send(start_run(lr=0.1))
    assert writer.flush() == ()
    assert only_run(client).info.status == "RUNNING"
    writer.send(LogEpoch("uid0", 2, {"loss": 0.5}, time_ms=2))
    assert writer.close() == ()
    assert metric_points(client, only_run(client), "loss") == [(2, 0.5, 2)]


def test_an_epoch_of_a_later_process_needs_no_second_start(client: MlflowClient) -> None:
    deliver(client, start_run(lr=0.1))
    assert deliver(client, LogEpoch("uid0", 2, {"loss": 0.5}, time_ms=2)) == ()
    assert metric_points(client, only_run(client), "loss") == [(2, 0.5, 2)]


def test_artifacts_are_delivered_in_a_separate_order_from_other_operations(
    client: MlflowClient, tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    report.write_text("<p>")
    flaky = FlakyClient(client, "log_artifact", lambda *_: True)
    operations = [
        start_run(),
        LogFile("uid0", str(report), "pages"),
        LogText("uid0", "why.txt", "so"),
        EndRun("uid0", "FAILED", {}),
    ]
    assert len(deliver(flaky, *operations)) == 2, "the text waits for the file before it"
    assert only_run(client).info.status == "FAILED", "the end of the run does not wait for a file"
    assert deliver(client) == ()
    run_id = only_run(client).info.run_id
    assert {file.path for file in client.list_artifacts(run_id)} == {"pages", "why.txt"}
    assert [file.path for file in client.list_artifacts(run_id, "pages")] == ["pages/report.html"]


def test_an_offline_writer_leaves_every_operation_in_the_outbox(client: MlflowClient) -> None:
    writer = open_writer(None)
    writer.send(start_run())
    writer.send(EndRun("uid0", "FINISHED", {}))
    assert writer.close() == ()
    assert writer.pending_count == 2
    assert deliver(client) == ()
    assert only_run(client).info.status == "FINISHED"


def test_a_full_disk_loses_no_point_if_the_server_is_available(client: MlflowClient, small_disk: Path) -> None:
    fill_disk(small_disk)
    writer = open_writer(client, small_disk / "outbox.jsonl")
    writer.send(start_run())
    for step in range(1, 201):
        writer.send(LogEpoch("uid0", step, {"loss": 1 / step}, time_ms=step))
    assert writer.close() == ()
    assert metric_points(client, only_run(client), "loss") == [(step, 1 / step, step) for step in range(1, 201)]


def test_an_operation_is_reported_as_lost_if_disk_and_server_fail(client: MlflowClient, small_disk: Path) -> None:
    fill_disk(small_disk)
    writer = open_writer(UnavailableClient(client), small_disk / "outbox.jsonl")
    writer.send(start_run())
    assert writer.close() == ("StartRun of trial uid0 (ConnectionError, and the disk is too full to store it)",)


def test_an_operation_in_memory_is_stored_once_the_disk_has_space(client: MlflowClient, small_disk: Path) -> None:
    filler = fill_disk(small_disk)
    writer = open_writer(UnavailableClient(client), small_disk / "outbox.jsonl")
    writer.send(start_run())
    filler.unlink()
    assert len(writer.close()) == 1
    next_writer = open_writer(client, small_disk / "outbox.jsonl")
    assert next_writer.close() == ()
    assert only_run(client).info.run_name == "trial-uid0"


def fill_disk(folder: Path) -> Path:
    """Fill a small disk to the last byte; return the file that fills it."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    return path


KILLED_SCRIPT = """
import os, signal, sys, pathlib
from tuning.tracking.operations import LogEpoch, StartRun
from tuning.tracking.async_writer import AsyncWriter
writer = AsyncWriter(None, "", {}, pathlib.Path(sys.argv[1]))
writer.send(StartRun("uid0", "trial-uid0", {}, {}, time_ms=1))
for step in range(1, 101):
    writer.send(LogEpoch("uid0", step, {"loss": 1 / step}, time_ms=step))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_driver_that_is_killed_right_after_sending_loses_nothing(client: MlflowClient) -> None:
    command = [sys.executable, "-c", KILLED_SCRIPT, str(OUTBOX.absolute())]
    killed = subprocess.run(command, cwd=REPOSITORY, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert deliver(client) == ()
    assert metric_points(client, only_run(client), "loss") == [(step, 1 / step, step) for step in range(1, 101)]
