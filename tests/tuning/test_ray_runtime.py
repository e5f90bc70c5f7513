"""Ray that does not start: once more, and then a sentence. A real cluster is in tests/system."""

from __future__ import annotations

import os
import threading
from contextlib import closing

import pytest

from data.errors import SearchError
from tests.tuning.factories import recipe
from tuning.search import ray_runtime


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the addresses that Ray was asked to start with; it never starts, in a process where none runs."""
    asked: list[str] = []

    def fail(address: str) -> None:
        asked.append(address)
        raise Exception("The current node timed out during startup.")  # as Ray raises it

    monkeypatch.setattr(ray_runtime, "_init", fail)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    return asked


def test_ray_that_never_starts_is_a_sentence(starts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "far:6379")
    sentence = "RAY_ADDRESS must answer, but Ray says: The current node timed out during startup"
    with pytest.raises(SearchError, match=sentence), ray_runtime.ray_running():
        pytest.fail("it did not start")
    assert starts == ["far:6379"] * 2


def test_ray_that_starts_the_second_time_has_started(starts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fail = ray_runtime._init
    monkeypatch.setattr(ray_runtime, "_init", lambda address: None if starts else fail(address))
    with ray_runtime.ray_running():
        assert len(starts) == 1


@pytest.fixture
def never_there(starts: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return what Ray's processes would inherit: it is taken down when Ray is asked to start, on two cores."""
    inherited: dict[str, str] = {}
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_preload_python_modules", raising=False)
    monkeypatch.setattr(ray_runtime, "cores", lambda: 2)
    monkeypatch.setattr(ray_runtime, "_init", lambda address: inherited.update(os.environ))
    return inherited


@pytest.mark.parametrize(
    ("asked", "ready"), [({}, True), ({"cpus_per_trial": 2}, False), ({"max_concurrent": 1}, False)]
)
def test_workers_import_what_trials_need_where_each_of_them_gets_one(
    never_there: dict[str, str], asked: dict[str, int], ready: bool
) -> None:
    with closing(ray_runtime.RayRuntime(recipe(trials="1", **asked))) as ray, ray.running():
        assert ("tuning.search.trial_worker" in never_there.get("RAY_preload_python_modules", "")) is ready
    assert "RAY_preload_python_modules" not in os.environ


def test_ray_that_was_begun_and_not_needed_has_ended(
    never_there: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    monkeypatch.setattr("ray.shutdown", lambda: ended.append("ray"))
    with closing(ray_runtime.RayRuntime()) as ray:
        ray.start_async()
    assert ended == ["ray"]
    assert not [thread for thread in threading.enumerate() if thread.name == "ray"]
