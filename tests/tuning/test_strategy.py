"""The order of a search: interrupted trials, enqueued trials, sampled trials, re-runs; when it waits and ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tuning.factories import epoch_report, recipe, trial_store
from tuning.common.trial_record import TrialRecord
from tuning.search.strategy import NextStep, SearchStrategy
from tuning.search.study import TrialStore
from tuning.search.time_budget import PROBE_TIME_FRACTIONS, TimeBudget


class Search:
    """A strategy on a real trial store, by default with one trial at a time."""

    def __init__(self, root: Path, **options: Any) -> None:
        defaults = {"max_epochs": 4, "sweep": "off", "trials": 3, "rerun_top_k": 2, "rerun_seeds": 1}
        self.recipe = recipe(**{**defaults, **options})
        self.store: TrialStore = trial_store(root, self.recipe)
        self.time_budget = TimeBudget(self.recipe.budget_s, root / "elapsed_s", has_reruns=True)
        self.stop_requested = False
        self.max_concurrent = 1
        self.strategy = SearchStrategy(
            self.recipe, self.store, self.time_budget, lambda: self.stop_requested, lambda: self.max_concurrent
        )

    def next(self) -> NextStep:
        return self.strategy.next()

    def start(self) -> TrialRecord:
        step = self.next()
        assert isinstance(step, TrialRecord)
        return step

    def run(self, score: float = 0.5) -> TrialRecord:
        trial = self.start()
        self.store.report(trial.trial_uid, epoch_report(1, score))
        return self.store.finish(trial.trial_uid, "complete", "")


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return Search(tmp_path)


def test_the_search_ends_after_the_trials_and_the_reruns_of_the_best(search: Search) -> None:
    origins = [search.run(score).origin for score in (0.5, 0.6, 0.7, 0.1, 0.1)]
    assert origins == ["default", "sampler", "sampler", "rerun", "rerun"]
    assert search.next() == "end"


def test_without_reruns_the_search_ends_after_its_trials(tmp_path: Path) -> None:
    search = Search(tmp_path, rerun_top_k=0)
    assert [search.run().origin for _ in range(3)] == ["default", "sampler", "sampler"]
    assert search.next() == "end"


def test_no_trial_starts_while_the_maximum_number_is_running(search: Search) -> None:
    search.start()
    assert search.next() == "wait"
    search.max_concurrent = 2
    assert isinstance(search.next(), TrialRecord)


def test_the_search_waits_for_running_trials_because_they_may_be_rerun(search: Search) -> None:
    search.max_concurrent = 2
    slow = search.start()
    for score in (0.5, 0.6):
        search.run(score)
    for _ in range(2):
        assert search.run(0.1).origin == "rerun"
    assert search.next() == "wait"
    search.store.report(slow.trial_uid, epoch_report(1, 0.9))
    search.store.finish(slow.trial_uid, "complete", "")
    assert search.run().rerun_of == slow.trial_uid
    assert search.next() == "end"


def test_requeued_trials_come_first(search: Search) -> None:
    first = search.start()
    search.store.requeue_running()
    assert search.start().trial_uid == first.trial_uid
    assert search.next() == "wait"


def test_no_trial_starts_after_a_stop_request(search: Search) -> None:
    search.stop_requested = True
    assert search.next() == "end"


def test_a_search_whose_first_trials_all_fail_ends(tmp_path: Path) -> None:
    search = Search(tmp_path, trials=50)
    for _ in range(6):
        search.store.finish(search.start().trial_uid, "failed", "ValueError: no")
    assert search.next() == "end"


def test_reruns_start_when_the_exploration_time_is_exhausted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(tmp_path, trials=50, minutes=60)
    search.run(0.6)
    search.run(0.5)
    monkeypatch.setattr(TimeBudget, "exploration_exhausted", property(lambda _: True))
    monkeypatch.setattr(search.time_budget, "has_time_for", lambda _: True)
    assert [search.run().origin for _ in range(2)] == ["rerun", "rerun"]
    assert search.next() == "end"


@pytest.mark.parametrize(("default_score", "next_origin"), [(0.99, "fine-tune"), (0.5, "probe")])
def test_probes_end_early_if_fine_tuning_is_significantly_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, default_score: float, next_origin: str
) -> None:
    search = Search(tmp_path, sweep="on", image_size="32,64", truncate="0,1", minutes=60)
    assert [search.run(score).origin for score in (0.5, 0.5, default_score)] == ["probe", "probe", "default"]
    assert search.start().origin == "probe"  # probes have a minimum of time in any case
    search.max_concurrent = 2
    monkeypatch.setattr(TimeBudget, "fraction_used", PROBE_TIME_FRACTIONS["fine-tuning"])
    assert search.start().origin == next_origin
