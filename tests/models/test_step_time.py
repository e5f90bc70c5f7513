"""Training step times by freeze fraction."""

from __future__ import annotations

from pathlib import Path

import pytest

import models.profiling.step_time
from data.cache.content_cache import ContentCache
from models.profiling.step_time import FREEZE_FRACTIONS, step_times


def test_steps_are_measured_once_and_are_faster_the_more_is_frozen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ContentCache(tmp_path)
    seconds = step_times("test_efficientnet", 64, cache)
    assert tuple(seconds) == FREEZE_FRACTIONS
    assert 0 < seconds[1.0] < seconds[0.0]
    monkeypatch.setattr(models.profiling.step_time, "_measure", lambda *_: pytest.fail("measured a second time"))
    assert step_times("test_efficientnet", 64, cache) == seconds
