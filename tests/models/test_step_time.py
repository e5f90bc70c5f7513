"""What a training step takes by the frozen share: measured once, then read."""

from __future__ import annotations

from pathlib import Path

import pytest

import models.profiling.step_time
from data.cache.content_cache import ContentCache
from models.profiling.step_time import FREEZE_FRACTIONS, step_times


def test_steps_are_measured_once_and_the_less_is_frozen_the_longer_they_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ContentCache(tmp_path)
    found = step_times("test_efficientnet", 64, store)
    assert tuple(found) == FREEZE_FRACTIONS
    assert 0 < found[1.0] < found[0.0]
    monkeypatch.setattr(models.profiling.step_time, "_measure", lambda *_: pytest.fail("measured again"))
    assert step_times("test_efficientnet", 64, store) == found
