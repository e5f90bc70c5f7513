"""The most memory that training held: of the process as Linux counts it, and of an accelerator as torch does."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch

RESET_PEAK = "5"  # what clear_refs takes for it: proc(5)


class PeakMemory:
    """The most memory held since this was made, in millions of bytes.

    A worker trains one trial after another, and the system's own count is of the process's whole life: so it is set
    back to what is held now. Only Linux can do that; elsewhere the process's memory is left out.
    """

    def __init__(self) -> None:
        self._is_counted = False
        with contextlib.suppress(OSError):  # not Linux, or one that does not let us
            Path("/proc/self/clear_refs").write_text(RESET_PEAK)
            self._is_counted = True
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def metrics(self) -> dict[str, float]:
        """Return ``peak_memory_mb`` of the process and ``peak_gpu_memory_mb`` of the GPU, where they are counted."""
        found = {}
        if self._is_counted:
            found["peak_memory_mb"] = _peak_mb()
        if torch.cuda.is_available():
            found["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
        return found


def _peak_mb() -> float:
    """Return the most memory that the process had in use, with its libraries; it is told in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024 / 1e6
