"""The machine that a search runs on: what it is, and what it does meanwhile where the environment asks for that."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from data.errors import TrackingError
from tuning.common.background import background_thread
from tuning.tracking.async_writer import AsyncWriter
from tuning.tracking.operations import PARENT_UID, LogEpoch

SYSTEM = "system/"  # what the names of metrics begin with that MLflow's UI shows on a page of their own
INTERVAL_S = 10.0  # between two looks, as MLflow's own monitor has it


def system_metrics_enabled() -> bool:
    """Return whether MLflow's own variable asks for system metrics.

    Raises:
        TrackingError: its value is neither yes nor no.
    """
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING as ASKED

    try:
        return bool(ASKED.get())  # type: ignore[no-untyped-call]
    except ValueError:
        given = os.environ[ASKED.name]
        raise TrackingError(f"{ASKED.name} must be true or false, got {given!r}; correct or unset it") from None


@contextmanager
def log_system_metrics(writer: AsyncWriter) -> Iterator[None]:
    """Within: what the machine does becomes metrics of the parent run, if ``system_metrics_enabled``.

    MLflow's own thread asks the server for the run before each look and ends with the first failure; this one reads the
    same numbers, and the writer takes them as it takes all else. They are of the machine that the command runs on.
    """
    if not system_metrics_enabled():
        yield
        return
    with background_thread("system-metrics", partial(_watch, writer)):
        yield


def _watch(writer: AsyncWriter, over: threading.Event) -> None:
    """Send the load of each interval until it is over; a search that goes on goes on counting."""
    import mlflow.environment_variables as variables

    interval: Any = variables.MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL
    monitors = _monitors()
    step = writer.last_epoch(PARENT_UID)
    while not over.wait(interval.get() or INTERVAL_S):
        step += 1
        found: dict[str, float] = {}
        for monitor in monitors:
            monitor.collect_metrics()
            found |= {SYSTEM + name: float(value) for name, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        writer.send(LogEpoch(PARENT_UID, step, found))


def _monitors() -> list[Any]:
    """Return MLflow's own readers of the load; of accelerators only where their library is there and finds one."""
    import psutil
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
    from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

    psutil.cpu_percent()  # which tells of the time since its last call, and 0 the first time
    always: tuple[Any, ...] = (CPUMonitor, DiskMonitor, NetworkMonitor)
    accelerators: tuple[Any, ...] = (GPUMonitor, ROCMMonitor)
    found = [monitor() for monitor in always]
    for accelerator in accelerators:
        try:
            return [*found, accelerator()]
        except Exception:  # noqa: S112  # there are many reasons why there is none
            continue
    return found
