"""Tune is restarted only if trials are open and no worker has sent a heartbeat for the timeout."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from data.errors import SearchError
from tests.tuning.factories import NUM_VAL_IMAGES, epoch_report, recipe, start_trial, trial_record, trial_store
from tuning.common.search_paths import SearchPaths
from tuning.common.signals import SignalHandler
from tuning.search import stall_watchdog
from tuning.search.space import SearchSpace
from tuning.search.stall_watchdog import HeartbeatSender, StallWatchdog
from tuning.search.strategy import SearchStrategy
from tuning.search.time_budget import TimeBudget
from tuning.search.tune_runner import MAX_FAILURES, TuneRunner

TIMEOUT_S = 300.0
FIRST, SECOND = (trial_record(number, None, "running") for number in range(2))


class Cluster:
    """A watchdog with a clock that a test sets, and workers whose heartbeats it reads."""

    def __init__(self, heartbeat_file: Path) -> None:
        self.now_s = 0.0
        self.heartbeat_file = heartbeat_file
        self.num_heartbeats = 0
        self.watchdog = StallWatchdog(heartbeat_file, lambda: self.now_s)

    def work(self) -> None:
        """Send one heartbeat of a worker."""
        self.num_heartbeats += 1
        self.heartbeat_file.write_bytes(b"")
        os.utime(self.heartbeat_file, (self.num_heartbeats, self.num_heartbeats))

    def is_stalled_after(self, seconds: float) -> bool:
        self.now_s += seconds
        return self.watchdog.check()


@pytest.fixture
def idle_cluster(tmp_path: Path) -> Cluster:
    """Return a cluster whose workers have not started."""
    return Cluster(tmp_path / "heartbeat")


@pytest.fixture
def cluster(idle_cluster: Cluster) -> Cluster:
    """Return a cluster whose first worker has run and ended a trial."""
    cluster = idle_cluster
    cluster.watchdog.on_trial_start(FIRST)
    cluster.work()
    assert not cluster.is_stalled_after(1)
    cluster.watchdog.on_trial_end(FIRST, None)
    return cluster


def test_a_submitted_trial_that_no_worker_starts_is_a_stall_after_the_timeout(cluster: Cluster) -> None:
    assert not cluster.is_stalled_after(2 * TIMEOUT_S)  # no trial is open
    cluster.watchdog.on_trial_start(SECOND)
    assert not cluster.is_stalled_after(TIMEOUT_S)
    assert cluster.is_stalled_after(1)
    cluster.work()
    assert not cluster.is_stalled_after(1)


def test_an_epoch_longer_than_the_timeout_is_no_stall(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "touch", lambda _: cluster.work())
    cluster.watchdog.on_trial_start(SECOND)
    on_batch = HeartbeatSender(cluster.heartbeat_file, lambda: cluster.now_s)
    before = cluster.num_heartbeats
    for _ in range(300):  # one epoch of 50 minutes, with a batch every ten seconds
        on_batch()
        assert not cluster.is_stalled_after(10)
    assert cluster.num_heartbeats - before == 50
    assert cluster.is_stalled_after(TIMEOUT_S)


def test_there_is_no_stall_while_the_worker_of_another_trial_works(cluster: Cluster) -> None:
    for trial in (FIRST, SECOND):
        cluster.watchdog.on_trial_start(trial)
    for _ in range(5):
        cluster.work()
        assert not cluster.is_stalled_after(TIMEOUT_S / 2)
    cluster.watchdog.on_trial_end(FIRST, None)
    assert cluster.is_stalled_after(TIMEOUT_S + 1)


def test_a_trial_that_ended_between_two_checks_shows_that_there_are_workers(idle_cluster: Cluster) -> None:
    cluster = idle_cluster
    cluster.watchdog.on_trial_start(FIRST)
    cluster.watchdog.on_trial_end(FIRST, epoch_report(1, 0.5))
    cluster.watchdog.on_trial_start(SECOND)
    assert cluster.is_stalled_after(TIMEOUT_S + 1)


def test_there_is_no_stall_before_a_first_worker_has_started(idle_cluster: Cluster) -> None:
    cluster = idle_cluster
    cluster.watchdog.on_trial_start(FIRST)
    assert not cluster.is_stalled_after(10 * TIMEOUT_S)


def test_a_heartbeat_of_an_earlier_session_does_not_count(idle_cluster: Cluster) -> None:
    cluster = idle_cluster
    cluster.work()
    with cluster.watchdog.watch(lambda: None):
        cluster.watchdog.on_trial_start(FIRST)  # resumed
        assert not cluster.is_stalled_after(1)
        assert not cluster.is_stalled_after(10 * TIMEOUT_S)


def test_a_stall_is_reported_once_and_forgotten_when_watching_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stall_watchdog, "POLL_INTERVAL_S", 0.001)
    stalls = threading.Semaphore(0)
    with cluster.watchdog.watch(stalls.release):
        cluster.watchdog.on_trial_start(SECOND)
        cluster.now_s += TIMEOUT_S + 1
        assert stalls.acquire(timeout=30)
    assert cluster.watchdog.is_stalled
    assert not stalls.acquire(blocking=False)
    with cluster.watchdog.watch(stalls.release):
        assert not cluster.watchdog.is_stalled
        assert not cluster.is_stalled_after(1)


@pytest.mark.parametrize("num_stalls", [1, MAX_FAILURES])
def test_a_search_continues_after_a_stall_but_fails_after_too_many(
    num_stalls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = trial_store(tmp_path)
    time_budget = TimeBudget(None, tmp_path / "elapsed_s", 0.0)
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
            "Ray lost its workers (no worker has sent a heartbeat for 300 s); continuing with 2 concurrent trials"
        ]
    else:
        with pytest.raises(SearchError, match="Ray lost its workers 5 times"):
            runner.run()
    assert len(set(submitted_uids)) == 1
