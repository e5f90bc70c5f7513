"""A trial that Ray was handed and never gives to a worker is noticed, and run again."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.tuning.factories import recipe, trial_record, trial_store
from tuning.common.search_paths import SearchPaths
from tuning.common.signals import SignalHandler
from tuning.search.stall_watchdog import StallWatchdog
from tuning.search.time_budget import TimeBudget
from tuning.search.trial_worker import TrialTask, run_trial
from tuning.search.tune_runner import MAX_RESTARTS, TuneRunner

ENDED, HANDED, OTHER = (trial_record(number, None, "running") for number in range(3))


@pytest.fixture
def handover(tmp_path: Path) -> StallWatchdog:
    """Return one that has no patience, and that has seen a trial begin and end."""
    made = StallWatchdog(SearchPaths(tmp_path), timeout_s=0.0)
    made.on_trial_start(ENDED)
    made.on_trial_end(ENDED, None)
    return made


def begin(root: Path, trial_uid: str) -> None:
    sign = SearchPaths(root).started_marker(trial_uid)
    sign.parent.mkdir(exist_ok=True)
    sign.touch()


def test_a_trial_that_no_worker_begins_is_lost(handover: StallWatchdog) -> None:
    assert not handover.is_stalled
    handover.on_trial_start(HANDED)
    assert handover.is_stalled


def test_it_takes_patience(tmp_path: Path) -> None:
    handover = StallWatchdog(SearchPaths(tmp_path), timeout_s=60.0)
    handover.on_trial_start(ENDED)
    handover.on_trial_end(ENDED, None)
    handover.on_trial_start(HANDED)
    assert not handover.is_stalled


def test_nothing_is_lost_while_a_worker_trains_any_of_them(handover: StallWatchdog, tmp_path: Path) -> None:
    for result in (HANDED, OTHER):
        handover.on_trial_start(result)
    begin(tmp_path, OTHER.trial_uid)
    assert not handover.is_stalled
    handover.on_trial_end(OTHER, None)
    assert handover.is_stalled


def test_the_first_workers_may_take_long_to_come(tmp_path: Path) -> None:
    handover = StallWatchdog(SearchPaths(tmp_path), timeout_s=0.0)
    handover.on_trial_start(HANDED)
    assert not handover.is_stalled


def test_the_sign_of_an_earlier_worker_does_not_count(handover: StallWatchdog, tmp_path: Path) -> None:
    begin(tmp_path, HANDED.trial_uid)
    handover.on_trial_start(HANDED)
    assert handover.is_stalled


def test_a_worker_leaves_its_sign_before_anything_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.tune.report", lambda _: None)
    task = TrialTask(trial_uid="here", config=HANDED.config, search_root=tmp_path, threads=1)
    run_trial({"task": task.to_json()})  # there is no data set: it fails
    assert SearchPaths(tmp_path).started_marker("here").exists()


def test_who_watches_is_told_once_and_begins_anew(handover: StallWatchdog) -> None:
    handover.on_trial_start(HANDED)
    rung = threading.Semaphore(0)
    with handover.watch(rung.release, every_s=0.01):
        handover.on_trial_start(HANDED)
        assert rung.acquire(timeout=30)
    assert not rung.acquire(blocking=False)
    with handover.watch(rung.release, every_s=0.01):
        assert not handover.is_stalled


@pytest.mark.parametrize("times", [1, MAX_RESTARTS])
def test_a_search_goes_on_with_what_was_lost_but_not_for_ever(
    times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, said = trial_store(tmp_path), list[str]()
    clock = TimeBudget(None, tmp_path / "spent_s")
    runner = TuneRunner(
        recipe(max_concurrent="2"), SearchPaths(tmp_path), ledger, (), SignalHandler(), clock, said.append
    )
    lost = iter([True] * times + [False])
    handed = []

    def run_once() -> None:
        handed.append(ledger.ask().trial_uid)
        monkeypatch.setattr(runner, "_handover", SimpleNamespace(is_lost=next(lost)))

    monkeypatch.setattr(runner, "_run_once", run_once)
    monkeypatch.setattr("tuning.search.tune_runner.resources", lambda: {"CPU": 2.0})
    if times < MAX_RESTARTS:
        runner.run()
        assert said == [
            "Ray lost its workers (a trial that Ray took got no worker); the search goes on, 2 trials at once"
        ]
    else:
        with pytest.raises(Exception, match="they were 5 times"):
            runner.run()
    assert len(set(handed)) == 1
