"""The share of a GPU: by memory and cores, a whole one if nothing is known, and larger after a lack of memory."""

from __future__ import annotations

import pytest

from models.profiling.step_memory import StepMemory, measure_step_memory
from tests.tuning.factories import trial_record
from tuning.search.gpu_share import GpuShare, gpu_share

GB = 10**9


@pytest.mark.parametrize(
    ("peak_bytes", "resources", "cpus_per_trial", "expected"),
    [
        (int(1.5 * GB), {"CPU": 16.0, "GPU": 1.0}, 1, 0.125),  # many would fit, but more than 8 wait for each other
        (10 * GB, {"CPU": 16.0, "GPU": 1.0}, 1, 0.3333),  # 3 x 12.6 GB
        (10 * GB, {"CPU": 4.0, "GPU": 2.0}, 1, 0.5),  # two cores for each GPU
        (10 * GB, {"CPU": 4.0, "GPU": 2.0}, 2, 1.0),
        (40 * GB, {"CPU": 16.0, "GPU": 1.0}, 1, 1.0),  # it may not fit; then batches are halved
    ],
)
def test_as_many_trials_share_a_gpu_as_memory_and_cores_allow(
    peak_bytes: int, resources: dict[str, float], cpus_per_trial: int, expected: float
) -> None:
    assert gpu_share(StepMemory("A GPU", 40 * GB, peak_bytes), resources, cpus_per_trial) == expected
    assert 1 // expected * expected <= 1


def test_each_trial_gets_a_whole_gpu_if_a_step_could_not_be_measured() -> None:
    assert measure_step_memory([], num_classes=2) is None
    assert gpu_share(None, {"CPU": 16.0, "GPU": 1.0}, 1) == 1.0


def test_the_share_doubles_after_a_trial_has_run_out_of_memory_up_to_a_whole_gpu() -> None:
    share = GpuShare(0.3333)
    failed = trial_record(0, None, "failed")
    share.on_trial_end(failed.model_copy(update={"reason": "RuntimeError: something else"}), None)
    assert (share.take(), share.has_grown) == (0.3333, False)
    for expected in (0.6666, 1.0, 1.0):
        share.on_trial_end(failed.model_copy(update={"reason": "OutOfMemoryError: CUDA out of memory"}), None)
        assert share.value == pytest.approx(expected)
    assert share.has_grown
    assert (share.take(), share.has_grown) == (1.0, False)


def test_a_trial_on_the_cpu_never_changes_the_share() -> None:
    share = GpuShare(0.0)
    failed = trial_record(0, None, "failed").model_copy(update={"reason": "OutOfMemoryError: out of memory"})
    share.on_trial_end(failed, None)
    assert (share.value, share.has_grown) == (0.0, False)
