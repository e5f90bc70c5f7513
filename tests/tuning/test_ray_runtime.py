"""Starting Ray, with Ray itself replaced; a real cluster is tested in tests/system."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from contextlib import closing

import pytest

from data.errors import SearchError, SettingError
from tests.tuning.factories import recipe
from tuning.common.signals import handle_signals
from tuning.search import ray_runtime
from tuning.search.ray_runtime import RayRuntime, concurrency


@pytest.fixture
def failed_starts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make Ray's start fail, and return the list of addresses of all attempts."""
    addresses: list[str] = []

    def fail(address: str) -> None:
        addresses.append(address)
        raise Exception("The current node timed out during startup.")  # as Ray raises it

    monkeypatch.setattr(ray_runtime, "_init", fail)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    return addresses


def test_after_two_failed_starts_the_error_has_rays_reason(
    failed_starts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "far:6379")
    message = "RAY_ADDRESS must respond, but Ray reported: The current node timed out during startup"
    with pytest.raises(SearchError, match=message), closing(RayRuntime(recipe())) as ray, ray.running():
        pytest.fail("Ray did not start")
    assert failed_starts == ["far:6379"] * 2


def test_a_failed_start_is_retried(failed_starts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fail = ray_runtime._init
    monkeypatch.setattr(ray_runtime, "_init", lambda address: None if failed_starts else fail(address))
    with closing(RayRuntime(recipe())) as ray, ray.running():
        assert len(failed_starts) == 1


@pytest.fixture
def ray_environment(failed_starts: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Replace Ray's start on two cores, and return the environment that its processes would inherit."""
    environment: dict[str, str] = {}
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_preload_python_modules", raising=False)
    monkeypatch.setattr(ray_runtime, "available_cores", lambda: 2)
    monkeypatch.setattr(ray_runtime, "_init", lambda address: environment.update(os.environ))
    return environment


@pytest.mark.parametrize(
    ("options", "has_preload"), [({}, True), ({"cpus_per_trial": 2}, False), ({"max_concurrent": 1}, False)]
)
def test_workers_preload_modules_only_if_each_of_them_runs_trials(
    ray_environment: dict[str, str], options: dict[str, int], has_preload: bool
) -> None:
    with closing(ray_runtime.RayRuntime(recipe(trials="1", **options))) as ray, ray.running():
        modules = ray_environment.get("RAY_preload_python_modules", "")
        assert ("tuning.search.worker_imports" in modules) is has_preload
    assert "RAY_preload_python_modules" not in os.environ


def test_a_signal_is_handled_after_the_shutdown_of_ray_which_resets_the_handlers(
    ray_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    get, reset_in_c = ctypes.pythonapi.PyOS_getsig, ctypes.CDLL(None).signal
    reset_in_c.argtypes, get.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    monkeypatch.setattr("ray.shutdown", lambda: reset_in_c(signal.SIGTERM, None))
    with handle_signals():
        handler_in_c = get(int(signal.SIGTERM))
        with closing(RayRuntime(recipe())) as ray, ray.running():
            pass
        assert get(int(signal.SIGTERM)) == handler_in_c


def test_ray_that_was_started_and_not_used_is_shut_down(
    ray_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutdowns: list[str] = []
    monkeypatch.setattr("ray.shutdown", lambda: shutdowns.append("ray"))
    before = set(threading.enumerate())  # the system tests of the same session may have a Ray
    with closing(ray_runtime.RayRuntime(recipe())) as ray:
        ray.start_async()
    assert shutdowns == ["ray"]
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "ray"]


@pytest.mark.parametrize(
    ("options", "resources", "message"),
    [
        ({"gpus_per_trial": "1"}, {"CPU": 2.0}, "gpus_per_trial must be at most 0, the GPUs that Ray has, got 1"),
        ({"gpus_per_trial": "2"}, {"CPU": 2.0, "GPU": 1.0}, "gpus_per_trial must be at most 1"),
        ({"cpus_per_trial": "4"}, {"CPU": 2.0}, "cpus_per_trial must be at most 2, the CPUs that Ray has, got 4"),
    ],
)
def test_a_trial_that_needs_more_than_ray_has_is_refused_instead_of_waiting_forever(
    options: dict[str, str], resources: dict[str, float], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        ray_runtime.check_resources(recipe(**options), resources)
    ray_runtime.check_resources(recipe(), {"CPU": 1.0})


@pytest.mark.parametrize(
    ("options", "resources", "max_concurrent"),
    [
        ({}, {"CPU": 8.0}, 8),
        ({"cpus_per_trial": "3"}, {"CPU": 8.0}, 2),
        ({"cpus_per_trial": "16"}, {"CPU": 8.0}, 1),
        ({"max_concurrent": "5"}, {"CPU": 2.0}, 5),
        ({}, {"CPU": 8.0, "memory": 3.5e9}, 2),
        ({}, {"CPU": 8.0, "memory": 0.5e9}, 1),
        ({"gpus_per_trial": "0.5"}, {"CPU": 8.0, "GPU": 2.0}, 4),
        ({"gpus_per_trial": "1"}, {"CPU": 8.0, "GPU": 2.0}, 2),
    ],
)
def test_the_number_of_concurrent_trials_is_max_concurrent_or_what_rays_resources_allow(
    options: dict[str, str], resources: dict[str, float], max_concurrent: int
) -> None:
    assert concurrency(recipe(**options), resources) == max_concurrent
