"""Peak memory of training: of the process as counted by Linux, and of the GPU as counted by torch."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch

RESET_PEAK = "5"  # written to /proc/self/clear_refs to reset the peak, see proc(5)


class PeakMemory:
    """Peak memory since this object was created, in MB (10^6 bytes).

    Linux counts the peak over the life of a process, but a worker trains one trial after another, so the constructor
    resets the counter. Only Linux supports that; on other systems the memory of the process is not reported.
    """

    def __init__(self) -> None:
        self._is_supported = False
        with contextlib.suppress(OSError):  # not Linux, or no permission
            Path("/proc/self/clear_refs").write_text(RESET_PEAK)
            self._is_supported = True
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def metrics(self) -> dict[str, float]:
        """Return ``peak_memory_mb`` (process) and ``peak_gpu_memory_mb`` (GPU), each only where it is available."""
        metrics = {}
        if self._is_supported:
            metrics["peak_memory_mb"] = _peak_mb()
        if torch.cuda.is_available():
            metrics["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
        return metrics


def _peak_mb() -> float:
    """Return the peak resident set size of the process, which Linux reports in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024 / 1e6
