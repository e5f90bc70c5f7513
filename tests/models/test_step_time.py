"""Training step times by freeze fraction."""

from __future__ import annotations

import pytest

import models.profiling.step_time
from models.profiling.step_time import FREEZE_FRACTIONS, step_times


def test_steps_are_measured_once_and_are_faster_the_more_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = step_times("test_efficientnet", 64)
    assert tuple(seconds) == FREEZE_FRACTIONS
    assert 0 < seconds[1.0] < seconds[0.0]
    monkeypatch.setattr(models.profiling.step_time, "_measure", lambda *_: pytest.fail("measured a second time"))
    assert step_times("test_efficientnet", 64) == seconds
