"""The most memory that training held."""

from __future__ import annotations

import mmap
import sys

import pytest

from models.training.peak_memory import PeakMemory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts a peak that can be set back")


def test_a_peak_is_of_what_came_after_it_was_made() -> None:
    first = PeakMemory()
    before = first.metrics()["peak_memory_mb"]
    with mmap.mmap(-1, 100_000_000) as held:  # what is allocated may be what the process freed and did not give back
        for page in range(0, len(held), mmap.PAGESIZE):
            held[page] = 1
    during = first.metrics()["peak_memory_mb"]
    assert during - before == pytest.approx(100, abs=20)
    assert PeakMemory().metrics()["peak_memory_mb"] < during - 80


def test_where_it_cannot_be_counted_it_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("models.training.peak_memory.Path.write_text", refuse)
    assert PeakMemory().metrics() == {}
