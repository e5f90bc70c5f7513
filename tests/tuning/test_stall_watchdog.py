"""A trial that Ray was handed and never gives to a worker is noticed, and run again."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.tuning.factories import ledger_at, recipe, trial_result
from tuning.common.search_paths import SearchPaths
from tuning.common.signals import Interrupts
from tuning.search.stall_watchdog import Handover
from tuning.search.time_budget import Clock
from tuning.search.trial_worker import TrialTask, run_trial
from tuning.search.tune_runner import COLLAPSES, Runner

ENDED, HANDED, OTHER = (trial_result(number, None, "running") for number in range(3))


@pytest.fixture
def handover(tmp_path: Path) -> Handover:
    """Return one that has no patience, and that has seen a trial begin and end."""
    made = Handover(SearchPaths(tmp_path), patience_s=0.0)
    made.trial_started(ENDED)
    made.trial_ended(ENDED, None)
    return made


def begin(root: Path, trial_uid: str) -> None:
    sign = SearchPaths(root).begun(trial_uid)
    sign.parent.mkdir(exist_ok=True)
    sign.touch()


def test_a_trial_that_no_worker_begins_is_lost(handover: Handover) -> None:
    assert not handover.is_lost
    handover.trial_started(HANDED)
    assert handover.is_lost


def test_it_takes_patience(tmp_path: Path) -> None:
    handover = Handover(SearchPaths(tmp_path), patience_s=60.0)
    handover.trial_started(ENDED)
    handover.trial_ended(ENDED, None)
    handover.trial_started(HANDED)
    assert not handover.is_lost


def test_nothing_is_lost_while_a_worker_trains_any_of_them(handover: Handover, tmp_path: Path) -> None:
    for result in (HANDED, OTHER):
        handover.trial_started(result)
    begin(tmp_path, OTHER.trial_uid)
    assert not handover.is_lost
    handover.trial_ended(OTHER, None)
    assert handover.is_lost


def test_the_first_workers_may_take_long_to_come(tmp_path: Path) -> None:
    handover = Handover(SearchPaths(tmp_path), patience_s=0.0)
    handover.trial_started(HANDED)
    assert not handover.is_lost


def test_the_sign_of_an_earlier_worker_does_not_count(handover: Handover, tmp_path: Path) -> None:
    begin(tmp_path, HANDED.trial_uid)
    handover.trial_started(HANDED)
    assert handover.is_lost


def test_a_worker_leaves_its_sign_before_anything_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.tune.report", lambda _: None)
    task = TrialTask(trial_uid="here", config=HANDED.config, search_root=tmp_path, threads=1)
    run_trial({"task": task.to_json()})  # there is no data set: it fails
    assert SearchPaths(tmp_path).begun("here").exists()


def test_who_watches_is_told_once_and_begins_anew(handover: Handover) -> None:
    handover.trial_started(HANDED)
    rung = threading.Semaphore(0)
    with handover.watched(rung.release, every_s=0.01):
        handover.trial_started(HANDED)
        assert rung.acquire(timeout=30)
    assert not rung.acquire(blocking=False)
    with handover.watched(rung.release, every_s=0.01):
        assert not handover.is_lost


@pytest.mark.parametrize("times", [1, COLLAPSES])
def test_a_search_goes_on_with_what_was_lost_but_not_for_ever(
    times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, said = ledger_at(tmp_path), list[str]()
    clock = Clock(None, tmp_path / "spent_s")
    runner = Runner(recipe(concurrent="2"), SearchPaths(tmp_path), ledger, (), Interrupts(), clock, said.append)
    lost = iter([True] * times + [False])
    handed = []

    def run_once() -> None:
        handed.append(ledger.ask().trial_uid)
        monkeypatch.setattr(runner, "_handover", SimpleNamespace(is_lost=next(lost)))

    monkeypatch.setattr(runner, "_run_once", run_once)
    monkeypatch.setattr("tuning.search.tune_runner.resources", lambda: {"CPU": 2.0})
    if times < COLLAPSES:
        runner.run()
        assert said == [
            "Ray lost its workers (a trial that Ray took got no worker); the search goes on, 2 trials at once"
        ]
    else:
        with pytest.raises(Exception, match="they were 5 times"):
            runner.run()
    assert len(set(handed)) == 1
