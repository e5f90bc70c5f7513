"""System metrics of the parent run: load of CPU, memory, disk, network and GPU, if MLflow's variable enables them."""

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

METRIC_PREFIX = "system/"  # MLflow's UI shows metrics with this prefix on a separate page
INTERVAL_S = 10.0  # MLflow's default


def system_metrics_enabled() -> bool:
    """Return whether MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is true.

    Raises:
        TrackingError: its value is no boolean.
    """
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING as ENABLED

    try:
        return bool(ENABLED.get())  # type: ignore[no-untyped-call]
    except ValueError:
        value = os.environ[ENABLED.name]
        raise TrackingError(f"{ENABLED.name} must be true or false, got {value!r}; correct or unset it") from None


@contextmanager
def log_system_metrics(writer: AsyncWriter) -> Iterator[None]:
    """Context manager that logs the load of this machine to the parent run, if ``system_metrics_enabled``.

    MLflow's own monitor requests the run from the server before each sample and stops at the first error. This thread
    uses the same readers but sends through the writer. It samples only the machine that runs the command.
    """
    if not system_metrics_enabled():
        yield
        return
    with background_thread("system-metrics", partial(_sample_until, writer)):
        yield


def _sample_until(writer: AsyncWriter, stop: threading.Event) -> None:
    """Send one sample per interval until ``stop`` is set; in a resumed search the step continues."""
    import mlflow.environment_variables as variables

    interval: Any = variables.MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL
    monitors = _monitors()
    step = writer.outbox.last_epochs.get(PARENT_UID, 0)
    while not stop.wait(interval.get() or INTERVAL_S):
        step += 1
        metrics: dict[str, float] = {}
        for monitor in monitors:
            monitor.collect_metrics()
            metrics |= {METRIC_PREFIX + name: float(value) for name, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        writer.send(LogEpoch(PARENT_UID, step, metrics))


def _monitors() -> list[Any]:
    """Return MLflow's readers of the load; a GPU reader only if its library is installed and finds a GPU."""
    import psutil
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
    from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

    psutil.cpu_percent()  # returns the load since its previous call, and 0 for the first call
    base_monitors: tuple[Any, ...] = (CPUMonitor, DiskMonitor, NetworkMonitor)
    gpu_monitors: tuple[Any, ...] = (GPUMonitor, ROCMMonitor)
    monitors = [monitor() for monitor in base_monitors]
    for gpu_monitor in gpu_monitors:
        try:
            return [*monitors, gpu_monitor()]
        except Exception:  # noqa: S112  # fails for many reasons without a GPU
            continue
    return monitors
