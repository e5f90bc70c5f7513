"""How many trials share a GPU: by the memory of a training step, and fewer after a trial has run out of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from models.profiling.step_memory import StepMemory
from tuning.common.trial_record import TrialCallback, TrialRecord, TrialReport

logger = logging.getLogger(__name__)

CONTEXT_BYTES = 600_000_000  # of a process on a GPU, before it computes anything
MEMORY_MARGIN = 1.2  # of a step: allocators fragment the memory
MAX_TRIALS_PER_GPU = 8  # more only wait for each other
RAY_PRECISION = 10_000  # Ray counts resources in parts of this size
OUT_OF_MEMORY = "OutOfMemoryError"  # torch's exception, with which the reason of such a failure begins


def gpu_share(memory: StepMemory | None, resources: Mapping[str, float], cpus_per_trial: int) -> float:
    """Return the share of a GPU that each trial gets; a whole one if the memory of a step is unknown.

    ``resources`` are those of Ray: as many trials share a GPU as its memory and the CPU cores allow.
    """
    if memory is None:
        return 1.0
    by_memory = memory.total_bytes / (MEMORY_MARGIN * memory.peak_bytes + CONTEXT_BYTES)
    by_cores = resources.get("CPU", 1.0) / resources.get("GPU", 1.0) / cpus_per_trial
    count = max(1, min(MAX_TRIALS_PER_GPU, int(by_memory), int(by_cores)))
    return RAY_PRECISION // count / RAY_PRECISION


class GpuShare(TrialCallback):
    """The GPUs of each trial; a share doubles after a trial has failed for lack of GPU memory.

    Attributes:
        value: the GPUs of each trial.
        has_grown: whether the share has grown since it was last read by ``take``.
    """

    def __init__(self, value: float) -> None:
        self.value = value
        self.has_grown = False

    def take(self) -> float:
        """Return the GPUs of each trial from now on."""
        self.has_grown = False
        return self.value

    def on_trial_end(self, trial: TrialRecord, report: TrialReport | None) -> None:
        """Double the share after a failure for lack of memory."""
        if 0 < self.value < 1 and trial.status == "failed" and trial.reason.startswith(OUT_OF_MEMORY):
            self.value, self.has_grown = min(1.0, 2 * self.value), True
            logger.warning("a trial ran out of GPU memory: fewer trials share a GPU from now on")
