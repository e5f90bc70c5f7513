"""What a search's run says of the machine: what it is, and its load where MLflow's own variable asks for it."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from data.errors import TrackingError
from tuning.common.signals import SignalHandler
from tuning.tracking.async_writer import AsyncWriter
from tuning.tracking.environment import machine_info
from tuning.tracking.operations import LogEpoch
from tuning.tracking.outbox import Outbox
from tuning.tracking.parent_run import ParentRun, parent_run_lifecycle
from tuning.tracking.system_metrics import SYSTEM, log_system_metrics, system_metrics_enabled

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = pytest.mark.usefixtures("no_pauses")

ASKED = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
CPU = f"{SYSTEM}cpu_utilization_percentage"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ASKED, "true")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.02")


def loads(path: Path) -> list[LogEpoch]:
    """Return the loads that a spool holds."""
    with closing(Outbox(path)) as spool:
        return [operation for operation in spool.pending.values() if isinstance(operation, LogEpoch)]


def watch(path: Path, until: int) -> list[LogEpoch]:
    """Return what is in a spool once it holds so many loads, or after a while."""
    writer = AsyncWriter(None, "", {}, path)
    with log_system_metrics(writer):
        ends = time.monotonic() + 20
        while writer.pending_count < until and time.monotonic() < ends:
            time.sleep(0.01)
    writer.close()
    return loads(path)


def test_hardware_is_told_by_name_and_size() -> None:
    told = machine_info()
    assert told["processor"]
    assert told["memory_gb"] == round(psutil.virtual_memory().total / 1e9, 1)
    assert isinstance(told["cores"], int)
    assert isinstance(told["accelerators"], list)


@pytest.mark.usefixtures("asked")
def test_the_load_is_on_the_parent_run_under_mlflows_own_names(client: MlflowClient) -> None:
    parent = ParentRun.open(client, None, "pets")
    with parent_run_lifecycle(parent, SignalHandler()):
        ends = time.monotonic() + 20
        while not parent.writer.pending_count and time.monotonic() < ends:
            time.sleep(0.01)
    metrics = client.get_run(parent.run_id).data.metrics
    assert {CPU, f"{SYSTEM}system_memory_usage_megabytes", f"{SYSTEM}disk_usage_percentage"} <= set(metrics)
    assert all(name.startswith(SYSTEM) for name in metrics)
    assert metrics[f"{SYSTEM}system_memory_usage_megabytes"] > 0


@pytest.mark.usefixtures("asked")
def test_a_search_that_goes_on_goes_on_counting(tmp_path: Path) -> None:
    first = watch(tmp_path / "spool.jsonl", until=2)
    both = watch(tmp_path / "spool.jsonl", until=len(first) + 2)
    assert len(both) >= len(first) + 2
    assert [load.step for load in both] == list(range(1, len(both) + 1))


def test_nothing_is_looked_at_that_nobody_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.001")
    writer = AsyncWriter(None, "", {}, tmp_path / "spool.jsonl")
    with log_system_metrics(writer):
        time.sleep(0.1)
    writer.close()
    assert loads(tmp_path / "spool.jsonl") == []


def test_a_wish_that_is_neither_yes_nor_no_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ASKED, "perhaps")
    with pytest.raises(TrackingError, match=f"{ASKED} must be true or false, got 'perhaps'; correct or unset it"):
        system_metrics_enabled()
