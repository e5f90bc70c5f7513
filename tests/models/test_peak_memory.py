"""Peak memory of training."""

from __future__ import annotations

import mmap
import sys

import pytest

from models.training.peak_memory import PeakMemory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the peak can be reset only on Linux")


def test_the_peak_is_counted_from_construction() -> None:
    first = PeakMemory()
    before = first.metrics()["peak_memory_mb"]
    with mmap.mmap(-1, 100_000_000) as block:  # malloc could reuse memory that the process has not returned
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
    during = first.metrics()["peak_memory_mb"]
    assert during - before == pytest.approx(100, abs=20)
    assert PeakMemory().metrics()["peak_memory_mb"] < during - 80


def test_the_metric_is_omitted_where_the_peak_cannot_be_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("models.training.peak_memory.Path.write_text", refuse)
    assert PeakMemory().metrics() == {}
