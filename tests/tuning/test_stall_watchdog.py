"""A stall of Ray Tune, where no worker starts a submitted trial, is detected and the trial runs again."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from data.errors import SearchError
from tests.tuning.factories import NUM_VAL_IMAGES, recipe, start_trial, trial_record, trial_store
from tuning.common.search_paths import SearchPaths
from tuning.common.signals import SignalHandler
from tuning.search.space import SearchSpace
from tuning.search.stall_watchdog import StallWatchdog
from tuning.search.strategy import SearchStrategy
from tuning.search.time_budget import TimeBudget
from tuning.search.trial_worker import TrialTask, run_trial
from tuning.search.tune_runner import MAX_FAILURES, TuneRunner

ENDED, SUBMITTED, OTHER = (trial_record(number, None, "running") for number in range(3))


@pytest.fixture
def watchdog(tmp_path: Path) -> StallWatchdog:
    """Return a watchdog without a timeout, after a first trial has ended."""
    watchdog = StallWatchdog(SearchPaths(tmp_path), timeout_s=0.0)
    watchdog.on_trial_start(ENDED)
    watchdog.on_trial_end(ENDED, None)
    return watchdog


def create_marker(root: Path, trial_uid: str) -> None:
    marker = SearchPaths(root).started_marker(trial_uid)
    marker.parent.mkdir(exist_ok=True)
    marker.touch()


def test_a_submitted_trial_without_a_worker_is_a_stall(watchdog: StallWatchdog) -> None:
    assert not watchdog.is_stalled
    watchdog.on_trial_start(SUBMITTED)
    assert watchdog.is_stalled


def test_there_is_no_stall_before_the_timeout(tmp_path: Path) -> None:
    watchdog = StallWatchdog(SearchPaths(tmp_path), timeout_s=60.0)
    watchdog.on_trial_start(ENDED)
    watchdog.on_trial_end(ENDED, None)
    watchdog.on_trial_start(SUBMITTED)
    assert not watchdog.is_stalled


def test_there_is_no_stall_while_a_worker_runs_a_trial(watchdog: StallWatchdog, tmp_path: Path) -> None:
    for trial in (SUBMITTED, OTHER):
        watchdog.on_trial_start(trial)
    create_marker(tmp_path, OTHER.trial_uid)
    assert not watchdog.is_stalled
    watchdog.on_trial_end(OTHER, None)
    assert watchdog.is_stalled


def test_there_is_no_stall_before_a_first_trial_has_ended(tmp_path: Path) -> None:
    watchdog = StallWatchdog(SearchPaths(tmp_path), timeout_s=0.0)
    watchdog.on_trial_start(SUBMITTED)
    assert not watchdog.is_stalled


def test_the_marker_of_an_earlier_worker_does_not_count(watchdog: StallWatchdog, tmp_path: Path) -> None:
    create_marker(tmp_path, SUBMITTED.trial_uid)
    watchdog.on_trial_start(SUBMITTED)
    assert watchdog.is_stalled


def test_a_worker_creates_its_marker_even_if_the_trial_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.tune.report", lambda _: None)
    task = TrialTask(trial_uid="here", config=SUBMITTED.config, search_root=tmp_path, threads=1)
    run_trial({"task": task.to_json()})  # fails because there is no data set
    assert SearchPaths(tmp_path).started_marker("here").exists()


def test_a_stall_is_reported_once_and_forgotten_when_watching_again(watchdog: StallWatchdog) -> None:
    watchdog.on_trial_start(SUBMITTED)
    stalls = threading.Semaphore(0)
    with watchdog.watch(stalls.release, poll_interval_s=0.01):
        watchdog.on_trial_start(SUBMITTED)
        assert stalls.acquire(timeout=30)
    assert not stalls.acquire(blocking=False)
    with watchdog.watch(stalls.release, poll_interval_s=0.01):
        assert not watchdog.is_stalled


@pytest.mark.parametrize("num_stalls", [1, MAX_FAILURES])
def test_a_search_continues_after_a_stall_but_fails_after_too_many(
    num_stalls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = trial_store(tmp_path)
    time_budget = TimeBudget(None, tmp_path / "elapsed_s")
    search_recipe = recipe(max_concurrent="2")
    strategy = SearchStrategy(search_recipe, SearchSpace(search_recipe), NUM_VAL_IMAGES)
    runner = TuneRunner(search_recipe, SearchPaths(tmp_path), store, strategy, (), SignalHandler(), time_budget)
    stalls = iter([True] * num_stalls + [False])
    submitted_uids = []

    def run_once() -> None:
        submitted_uids.append(start_trial(store).trial_uid)
        monkeypatch.setattr(runner, "_watchdog", SimpleNamespace(is_stalled=next(stalls)))

    monkeypatch.setattr(runner, "_run_once", run_once)
    monkeypatch.setattr("tuning.search.tune_runner.cluster_resources", lambda: {"CPU": 2.0})
    if num_stalls < MAX_FAILURES:
        runner.run()
        assert caplog.messages == [
            "Ray lost its workers (no worker started a submitted trial); continuing with 2 concurrent trials"
        ]
    else:
        with pytest.raises(SearchError, match="Ray lost its workers 5 times"):
            runner.run()
    assert len(set(submitted_uids)) == 1
