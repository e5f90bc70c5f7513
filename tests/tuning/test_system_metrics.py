"""System metrics of the parent run; MLflow's own variable enables the metrics."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from data.errors import TrackingError
from tuning.common.signals import SignalHandler
from tuning.tracking.async_writer import AsyncWriter
from tuning.tracking.operations import LogEpoch
from tuning.tracking.outbox import Outbox
from tuning.tracking.parent_run import ParentRun, parent_run_lifecycle
from tuning.tracking.system_metrics import METRIC_PREFIX, log_system_metrics, system_metrics_enabled

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = pytest.mark.usefixtures("no_pauses")

ENABLED = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
CPU = f"{METRIC_PREFIX}cpu_utilization_percentage"
MEMORY = f"{METRIC_PREFIX}system_memory_usage_megabytes"
DISK = f"{METRIC_PREFIX}disk_usage_percentage"


@pytest.fixture
def enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENABLED, "true")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.02")


def samples_in(path: Path) -> list[LogEpoch]:
    """Return the samples in an outbox."""
    with closing(Outbox(path)) as outbox:
        return [operation for operation in outbox.pending.values() if isinstance(operation, LogEpoch)]


def sample_until(path: Path, count: int) -> list[LogEpoch]:
    """Log system metrics until the outbox has ``count`` samples, or for 20 s; return all samples."""
    writer = AsyncWriter(None, "", {}, path)
    with log_system_metrics(writer):
        deadline_s = time.monotonic() + 20
        while writer.pending_count < count and time.monotonic() < deadline_s:
            time.sleep(0.01)
    writer.close()
    return samples_in(path)


@pytest.mark.usefixtures("enabled")
def test_system_metrics_are_on_the_parent_run_under_mlflows_names(client: MlflowClient) -> None:
    parent = ParentRun.open(client, None, "pets")
    with parent_run_lifecycle(parent, SignalHandler()):
        deadline_s = time.monotonic() + 20
        while not parent.writer.pending_count and time.monotonic() < deadline_s:
            time.sleep(0.01)
    metrics = client.get_run(parent.run_id).data.metrics
    assert {CPU, MEMORY, DISK} <= set(metrics)
    assert all(name.startswith(METRIC_PREFIX) for name in metrics)
    assert metrics[MEMORY] > 0


@pytest.mark.usefixtures("enabled")
def test_steps_continue_in_a_resumed_search(tmp_path: Path) -> None:
    first = sample_until(tmp_path / "outbox.jsonl", 2)
    both = sample_until(tmp_path / "outbox.jsonl", len(first) + 2)
    assert len(both) >= len(first) + 2
    assert [sample.step for sample in both] == list(range(1, len(both) + 1))


def test_nothing_is_sampled_unless_enabled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.001")
    writer = AsyncWriter(None, "", {}, tmp_path / "outbox.jsonl")
    with log_system_metrics(writer):
        time.sleep(0.1)
    writer.close()
    assert samples_in(tmp_path / "outbox.jsonl") == []


def test_a_value_that_is_no_boolean_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENABLED, "perhaps")
    with pytest.raises(TrackingError, match=f"{ENABLED} must be true or false, got 'perhaps'; correct or unset it"):
        system_metrics_enabled()
