"""Ray that does not start: once more, and then a sentence. A real cluster is in tests/system."""

from __future__ import annotations

import pytest

from data.errors import SearchError
from tuning.search import cluster


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the addresses that Ray was asked to start with; it never starts, in a process where none runs."""
    asked: list[str] = []

    def fail(address: str) -> None:
        asked.append(address)
        raise Exception("The current node timed out during startup.")  # as Ray raises it

    monkeypatch.setattr(cluster, "_init", fail)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    return asked


def test_ray_that_never_starts_is_a_sentence(starts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "far:6379")
    sentence = "RAY_ADDRESS must answer, but Ray says: The current node timed out during startup"
    with pytest.raises(SearchError, match=sentence), cluster.ray_started():
        pytest.fail("it did not start")
    assert starts == ["far:6379"] * 2


def test_ray_that_starts_the_second_time_has_started(starts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fail = cluster._init
    monkeypatch.setattr(cluster, "_init", lambda address: None if starts else fail(address))
    with cluster.ray_started():
        assert len(starts) == 1
