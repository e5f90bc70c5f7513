"""The Tune Searcher, driven at its own interface as Ray drives it: suggest, result, complete."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from ray.tune.search import Searcher

from tests.tuning.factories import epoch_report, trial_store
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialRecord, TrialReport
from tuning.search.samplers import INFRASTRUCTURE_FAILURE
from tuning.search.schedulers import NEVER_STOP
from tuning.search.searcher import WORKER_LOST, StudySearcher
from tuning.search.strategy import NextStep
from tuning.search.study import TrialStore
from tuning.search.trial_worker import TrialTask

Heard = list[tuple[object, ...]]


class Listener:
    """Writes down what it hears in a list that several listeners share."""

    def __init__(self, name: str, heard: Heard) -> None:
        self._name = name
        self._heard = heard
        self._lock = threading.Lock()  # can't be pickled, nor can what the writer holds

    def trial_started(self, result: TrialRecord) -> None:
        self._heard.append((self._name, "started", result.number))

    def epoch_ended(self, result: TrialRecord, report: TrialReport) -> None:
        self._heard.append((self._name, "epoch", result.number, report.epoch, result.epochs))

    def trial_ended(self, result: TrialRecord, report: TrialReport | None) -> None:
        self._heard.append((self._name, "ended", result.number, result.status, report is None))


class Search:
    """A searcher on a real ledger, with what its listeners heard."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stopped = False
        self.waits = False
        self.heard: Heard = []
        self.ledger: TrialStore = trial_store(root)
        listeners = (Listener("a", self.heard), Listener("b", self.heard))
        self.searcher = StudySearcher(self.ledger, listeners, self.make_task, self.next_trial)

    def next_trial(self) -> NextStep:
        return "end" if self.stopped else "wait" if self.waits else self.ledger.ask()

    def make_task(self, result: TrialRecord) -> TrialTask:
        return TrialTask(trial_uid=result.trial_uid, config=result.config, search_root=self.root, threads=1)

    def start(self, trial_id: str = "ray-1") -> TrialTask:
        return TrialTask.from_json(self.searcher.suggest(trial_id)["task"])

    def only(self) -> TrialRecord:
        (result,) = self.ledger.trials()
        return result


def told(report: TrialReport) -> dict[str, Any]:
    """Return what Ray hands to the searcher for a report."""
    return {"epoch": report.epoch, "objective": 0.5, "report": report.to_json(), "training_iteration": 1}


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return Search(tmp_path)


def test_a_suggestion_is_the_ledgers_trial_as_a_task(search: Search) -> None:
    task = search.start()
    result = search.only()
    assert (task.trial_uid, task.config, task.search_root) == (result.trial_uid, result.config, search.root)


def test_only_the_default_trial_is_protected_from_the_scheduler(search: Search) -> None:
    suggested = [search.searcher.suggest(f"ray-{number}") for number in range(3)]
    assert [one[NEVER_STOP] for one in suggested] == [True, False, False]


def test_nothing_is_suggested_once_it_is_enough(search: Search) -> None:
    search.stopped = True
    assert search.searcher.suggest("ray-1") == Searcher.FINISHED
    assert search.ledger.trials() == ()
    assert search.heard == []


def test_where_it_is_to_wait_nothing_is_suggested_and_the_search_is_not_finished(search: Search) -> None:
    search.waits = True
    assert search.searcher.suggest("ray-1") is None
    assert search.ledger.trials() == ()


def test_a_trial_that_says_its_last_word_is_complete(search: Search) -> None:
    search.start()
    search.searcher.on_trial_result("ray-1", told(epoch_report(1, 0.5)))
    last = TrialReport(status="complete", epoch=1)
    search.searcher.on_trial_result("ray-1", told(last))
    search.searcher.on_trial_complete("ray-1", told(last))
    assert (search.only().status, search.only().score, search.only().epochs) == ("complete", 0.5, 1)


def test_a_trial_that_is_stopped_in_an_epoch_keeps_it_and_is_pruned(search: Search) -> None:
    search.start()
    search.searcher.on_trial_result("ray-1", told(epoch_report(1, 0.5)))
    search.searcher.on_trial_complete("ray-1", told(epoch_report(2, 0.6)))
    result = search.only()
    assert (result.status, result.epochs, result.score) == ("pruned", 2, 0.6)
    assert result.reason == "stopped by the scheduler after epoch 2"


def test_a_trial_that_is_stopped_in_its_last_epoch_is_complete(search: Search) -> None:
    search.start()
    for number in (1, 2, 3):
        search.searcher.on_trial_result("ray-1", told(epoch_report(number, 0.5)))
    search.searcher.on_trial_complete("ray-1", told(epoch_report(4, 0.6)))
    assert (search.only().status, search.only().epochs) == ("complete", 4)


def test_a_trial_that_failed_is_told_with_its_own_reason(search: Search) -> None:
    search.start()
    search.searcher.on_trial_result("ray-1", told(epoch_report(1, 0.5)))
    failed = TrialReport(status="failed", epoch=1, reason="Divergence: NaN", traceback="...")
    search.searcher.on_trial_result("ray-1", told(failed))
    search.searcher.on_trial_complete("ray-1", told(failed))
    assert (search.only().status, search.only().reason) == ("failed", "Divergence: NaN")
    assert search.heard[-1] == ("b", "ended", 0, "failed", False)


@pytest.mark.parametrize(
    ("result", "error"), [(None, True), (None, False), ({}, False), (told(epoch_report(1, 0.5)), True)]
)
def test_a_lost_worker_is_a_failed_trial(search: Search, result: dict[str, Any] | None, error: bool) -> None:
    search.start()
    search.searcher.on_trial_complete("ray-1", result, error=error)
    assert (search.only().status, search.only().reason) == ("failed", WORKER_LOST)
    assert search.heard[-1] == ("b", "ended", 0, "failed", True)


@pytest.mark.parametrize("blameless", [True, False])
def test_what_a_failure_says_about_the_settings_is_written_down(search: Search, blameless: bool) -> None:
    search.start("ray-1")
    failed = TrialReport(status="failed", epoch=0, reason="OSError: full", is_infrastructure_failure=blameless)
    search.searcher.on_trial_complete("ray-1", told(failed))
    search.start("ray-2")
    search.searcher.on_trial_complete("ray-2", error=True)
    lines = map(json.loads, SearchPaths(search.root).journal.read_text().splitlines())
    noted = [line["trial_id"] for line in lines if line.get("user_attr") == {INFRASTRUCTURE_FAILURE: True}]
    assert noted == ([0, 1] if blameless else [1])


def test_listeners_are_told_in_their_order_and_the_result_already_holds_the_epoch(search: Search) -> None:
    search.start()
    search.searcher.on_trial_result("ray-1", told(epoch_report(1, 0.5)))
    search.searcher.on_trial_complete("ray-1", told(TrialReport(status="complete", epoch=1)))
    each = [("started", 0), ("epoch", 0, 1, 1), ("ended", 0, "complete", False)]
    assert search.heard == [(name, *event) for event in each for name in ("a", "b")]


def test_trials_at_once_are_kept_apart(search: Search) -> None:
    first, second = search.start("ray-1"), search.start("ray-2")
    search.searcher.on_trial_result("ray-2", told(epoch_report(1, 0.9)))
    search.searcher.on_trial_result("ray-1", told(epoch_report(1, 0.1)))
    assert search.ledger.get(first.trial_uid).score == 0.1
    assert search.ledger.get(second.trial_uid).score == 0.9


def test_an_epoch_that_is_told_twice_is_heard_once(search: Search) -> None:
    search.start()
    for _ in range(2):
        search.searcher.on_trial_result("ray-1", told(epoch_report(1, 0.5)))
    assert search.heard.count(("a", "epoch", 0, 1, 1)) == 1


def test_the_searcher_can_be_pickled_and_the_search_goes_on(search: Search, tmp_path: Path) -> None:
    search.start()
    assert isinstance(cloudpickle.loads(cloudpickle.dumps(search.searcher)), Searcher)
    search.searcher.save(str(tmp_path / "snapshot"))
    search.searcher.on_trial_result("ray-1", told(epoch_report(1, 0.5)))
    assert (tmp_path / "snapshot").read_text() == "{}"
    assert search.only().score == 0.5
