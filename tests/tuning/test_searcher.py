"""The Tune Searcher, driven through its interface as by Ray: suggest, result, complete."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from ray.tune.search import Searcher

from tests.tuning.factories import epoch_report, trial_record, trial_store
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialCallback, TrialRecord, TrialReport
from tuning.search.samplers import INFRASTRUCTURE_FAILURE
from tuning.search.schedulers import EXCLUDED, NEVER_STOP
from tuning.search.searcher import WORKER_LOST, StudySearcher, scheduler_flags
from tuning.search.strategy import NextStep, Proposal
from tuning.search.study import TrialStore
from tuning.search.trial_worker import TrialTask

Calls = list[tuple[object, ...]]


class RecordingCallback(TrialCallback):
    """Records its calls in a list that several callbacks share."""

    def __init__(self, name: str, calls: Calls) -> None:
        self._name = name
        self._calls = calls
        self._lock = threading.Lock()  # cannot be pickled, like the writer of the real callbacks

    def on_trial_start(self, trial: TrialRecord) -> None:
        self._calls.append((self._name, "started", trial.number))

    def on_epoch_end(self, trial: TrialRecord, report: TrialReport) -> None:
        self._calls.append((self._name, "epoch", trial.number, report.epoch, trial.epochs))

    def on_trial_end(self, trial: TrialRecord, report: TrialReport | None) -> None:
        self._calls.append((self._name, "ended", trial.number, trial.status, report is None))


class Search:
    """A searcher on a real trial store, with the calls of its callbacks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.should_end = False
        self.should_wait = False
        self.calls: Calls = []
        self.store: TrialStore = trial_store(root)
        callbacks = (RecordingCallback("a", self.calls), RecordingCallback("b", self.calls))
        self.searcher = StudySearcher(self.store, callbacks, self.make_task, self.next_step)

    def next_step(self) -> NextStep:
        proposal = Proposal("sampler" if self.store.trials() else "default", {})
        step = next(iter(self.store.interrupted()), proposal)
        return "end" if self.should_end else "wait" if self.should_wait else step

    def make_task(self, trial: TrialRecord) -> TrialTask:
        return TrialTask(trial_uid=trial.trial_uid, config=trial.config, search_root=self.root, threads=1)

    def start(self, trial_id: str = "ray-1") -> TrialTask:
        return TrialTask.from_json(self.searcher.suggest(trial_id)["task"])

    def only_trial(self) -> TrialRecord:
        (trial,) = self.store.trials()
        return trial


def ray_result(report: TrialReport) -> dict[str, Any]:
    """Return the result that Ray passes to the searcher for a report."""
    return {"epoch": report.epoch, "objective": 0.5, "report": report.to_json(), "training_iteration": 1}


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return Search(tmp_path)


def test_a_suggestion_is_a_trial_of_the_store_as_a_task(search: Search) -> None:
    task = search.start()
    trial = search.only_trial()
    assert (task.trial_uid, task.config, task.search_root) == (trial.trial_uid, trial.config, search.root)


def test_only_the_default_trial_has_the_flag_that_it_must_not_be_stopped(search: Search) -> None:
    suggestions = [search.searcher.suggest(f"ray-{number}") for number in range(3)]
    assert [suggestion[NEVER_STOP] for suggestion in suggestions] == [True, False, False]


def test_the_champions_configuration_must_not_be_stopped_and_is_compared_with_other_trials() -> None:
    champion = trial_record().model_copy(update={"origin": "champion"})
    assert scheduler_flags(champion) == {NEVER_STOP: True, EXCLUDED: False}


def test_the_searcher_is_finished_at_the_end_of_the_search(search: Search) -> None:
    search.should_end = True
    assert search.searcher.suggest("ray-1") == Searcher.FINISHED
    assert search.store.trials() == ()
    assert search.calls == []


def test_the_searcher_suggests_nothing_while_the_search_waits(search: Search) -> None:
    search.should_wait = True
    assert search.searcher.suggest("ray-1") is None
    assert search.store.trials() == ()


def test_a_trial_with_a_final_report_is_complete(search: Search) -> None:
    search.start()
    search.searcher.on_trial_result("ray-1", ray_result(epoch_report(1, 0.5)))
    final_report = TrialReport(status="complete", epoch=1)
    search.searcher.on_trial_result("ray-1", ray_result(final_report))
    search.searcher.on_trial_complete("ray-1", ray_result(final_report))
    trial = search.only_trial()
    assert (trial.status, trial.score, trial.epochs) == ("complete", 0.5, 1)


def test_a_stopped_trial_is_pruned_and_keeps_its_last_epoch(search: Search) -> None:
    search.start()
    search.searcher.on_trial_result("ray-1", ray_result(epoch_report(1, 0.5)))
    search.searcher.on_trial_complete("ray-1", ray_result(epoch_report(2, 0.6)))
    trial = search.only_trial()
    assert (trial.status, trial.epochs, trial.score) == ("pruned", 2, 0.6)
    assert trial.reason == "stopped by the scheduler after epoch 2"


def test_a_trial_stopped_after_its_last_epoch_is_complete(search: Search) -> None:
    search.start()
    for number in (1, 2, 3):
        search.searcher.on_trial_result("ray-1", ray_result(epoch_report(number, 0.5)))
    search.searcher.on_trial_complete("ray-1", ray_result(epoch_report(4, 0.6)))
    assert (search.only_trial().status, search.only_trial().epochs) == ("complete", 4)


def test_a_failed_trial_has_the_reason_of_its_report(search: Search) -> None:
    search.start()
    search.searcher.on_trial_result("ray-1", ray_result(epoch_report(1, 0.5)))
    failed = TrialReport(status="failed", epoch=1, reason="Divergence: NaN", traceback="...")
    search.searcher.on_trial_result("ray-1", ray_result(failed))
    search.searcher.on_trial_complete("ray-1", ray_result(failed))
    assert (search.only_trial().status, search.only_trial().reason) == ("failed", "Divergence: NaN")
    assert search.calls[-1] == ("b", "ended", 0, "failed", False)


@pytest.mark.parametrize(
    ("result", "error"), [(None, True), (None, False), ({}, False), (ray_result(epoch_report(1, 0.5)), True)]
)
def test_a_trial_whose_worker_was_lost_too_often_is_failed(
    search: Search, result: dict[str, Any] | None, error: bool
) -> None:
    search.start()
    search.searcher.on_trial_complete("ray-1", result, error=error)
    assert (search.only_trial().status, search.only_trial().reason) == ("failed", WORKER_LOST)
    assert search.calls[-1] == ("b", "ended", 0, "failed", True)


@pytest.mark.parametrize("is_infrastructure_failure", [True, False])
def test_infrastructure_failures_are_saved_as_such(search: Search, is_infrastructure_failure: bool) -> None:
    search.start("ray-1")
    failed = TrialReport(
        status="failed", epoch=0, reason="OSError: full", is_infrastructure_failure=is_infrastructure_failure
    )
    search.searcher.on_trial_complete("ray-1", ray_result(failed))
    search.start("ray-2")
    search.searcher.on_trial_complete("ray-2", error=True)
    lines = map(json.loads, SearchPaths(search.root).journal.read_text().splitlines())
    trial_ids = [line["trial_id"] for line in lines if line.get("user_attr") == {INFRASTRUCTURE_FAILURE: True}]
    assert trial_ids == ([0, 1] if is_infrastructure_failure else [1])


def test_callbacks_are_called_in_order_after_the_record_was_updated(search: Search) -> None:
    search.start()
    search.searcher.on_trial_result("ray-1", ray_result(epoch_report(1, 0.5)))
    search.searcher.on_trial_complete("ray-1", ray_result(TrialReport(status="complete", epoch=1)))
    events = [("started", 0), ("epoch", 0, 1, 1), ("ended", 0, "complete", False)]
    assert search.calls == [(name, *event) for event in events for name in ("a", "b")]


def test_concurrent_trials_keep_their_own_scores(search: Search) -> None:
    first, second = search.start("ray-1"), search.start("ray-2")
    search.searcher.on_trial_result("ray-2", ray_result(epoch_report(1, 0.9)))
    search.searcher.on_trial_result("ray-1", ray_result(epoch_report(1, 0.1)))
    assert search.store.get(first.trial_uid).score == 0.1
    assert search.store.get(second.trial_uid).score == 0.9


def test_callbacks_are_called_once_for_a_repeated_epoch(search: Search) -> None:
    search.start()
    for _ in range(2):
        search.searcher.on_trial_result("ray-1", ray_result(epoch_report(1, 0.5)))
    assert search.calls.count(("a", "epoch", 0, 1, 1)) == 1


def test_the_searcher_can_be_pickled_and_the_search_continues(search: Search, tmp_path: Path) -> None:
    search.start()
    assert isinstance(cloudpickle.loads(cloudpickle.dumps(search.searcher)), Searcher)
    search.searcher.save(str(tmp_path / "snapshot"))
    search.searcher.on_trial_result("ray-1", ray_result(epoch_report(1, 0.5)))
    assert (tmp_path / "snapshot").read_text() == "{}"
    assert search.only_trial().score == 0.5
