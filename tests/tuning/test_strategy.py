"""What comes next in a search: interrupted trials, starts, the sampler's, finals; to wait, or that it is enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tuning.factories import epoch_report, recipe, trial_store
from tuning.common.trial_record import TrialRecord
from tuning.search.strategy import NextStep, SearchStrategy
from tuning.search.study import TrialStore
from tuning.search.time_budget import PROBE_TIME_FRACTIONS, TimeBudget


class Led:
    """A course on a real ledger, one trial at a time unless said otherwise."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, **texts: Any) -> None:
        self.recipe = recipe(
            **{"max_epochs": 4, "sweep": "off", "trials": 3, "rerun_top_k": 2, "rerun_seeds": 1, **texts}
        )
        self.ledger: TrialStore = trial_store(root, self.recipe)
        self.clock = TimeBudget(self.recipe.budget_s, root / "spent", has_reruns=True)
        self.ended = False
        self.most = 1
        self.course = SearchStrategy(self.recipe, self.ledger, self.clock, lambda: self.ended, lambda: self.most)
        self.monkeypatch = monkeypatch

    def next(self) -> NextStep:
        return self.course.next()

    def begin(self) -> TrialRecord:
        step = self.next()
        assert isinstance(step, TrialRecord)
        return step

    def run(self, score: float = 0.5) -> TrialRecord:
        trial = self.begin()
        self.ledger.report(trial.trial_uid, epoch_report(1, score))
        return self.ledger.finish(trial.trial_uid, "complete", "")


@pytest.fixture
def led(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Led:
    return Led(tmp_path, monkeypatch)


def test_trials_come_until_they_are_spent_and_then_the_finals_and_then_the_end(led: Led) -> None:
    origins = [led.run(score).origin for score in (0.5, 0.6, 0.7, 0.1, 0.1)]
    assert origins == ["default", "sampler", "sampler", "rerun", "rerun"]
    assert led.next() == "end"


def test_without_finalists_the_search_ends_with_its_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    led = Led(tmp_path, monkeypatch, rerun_top_k=0)
    assert [led.run().origin for _ in range(3)] == ["default", "sampler", "sampler"]
    assert led.next() == "end"


def test_no_more_trials_are_begun_than_may_run_at_once(led: Led) -> None:
    led.begin()
    assert led.next() == "wait"
    led.most = 2
    assert isinstance(led.next(), TrialRecord)


def test_whoever_still_runs_is_waited_for_for_it_may_become_a_finalist(led: Led) -> None:
    led.most = 2
    slow = led.begin()
    for score in (0.5, 0.6):
        led.run(score)
    for _ in range(2):
        assert led.run(0.1).origin == "rerun"
    assert led.next() == "wait"
    led.ledger.report(slow.trial_uid, epoch_report(1, 0.9))
    led.ledger.finish(slow.trial_uid, "complete", "")
    assert led.run().rerun_of == slow.trial_uid
    assert led.next() == "end"


def test_trials_that_were_put_back_come_first(led: Led) -> None:
    first = led.begin()
    led.ledger.requeue_running()
    assert led.begin().trial_uid == first.trial_uid
    assert led.next() == "wait"


def test_a_user_who_ends_gets_no_new_trial(led: Led) -> None:
    led.ended = True
    assert led.next() == "end"


def test_a_search_whose_first_trials_all_fail_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    led = Led(tmp_path, monkeypatch, trials=50)
    for _ in range(6):
        led.ledger.finish(led.begin().trial_uid, "failed", "ValueError: no")
    assert led.next() == "end"


def test_when_the_time_for_new_settings_is_over_the_finals_begin_and_then_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    led = Led(tmp_path, monkeypatch, trials=50, minutes=60)
    led.run(0.6)
    led.run(0.5)
    monkeypatch.setattr(TimeBudget, "exploration_exhausted", property(lambda _: True))
    monkeypatch.setattr(led.clock, "fits", lambda _: True)
    assert [led.run().origin for _ in range(2)] == ["rerun", "rerun"]
    assert led.next() == "end"


@pytest.mark.parametrize(("default", "next_origin"), [(0.99, "fine-tune"), (0.5, "probe")])
def test_a_sweep_that_fine_tuning_leaves_behind_ends_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, default: float, next_origin: str
) -> None:
    led = Led(tmp_path, monkeypatch, sweep="on", image_size="32,64", truncate="0,1", minutes=60)
    assert [led.run(score).origin for score in (0.5, 0.5, default)] == ["probe", "probe", "default"]
    assert led.begin().origin == "probe"  # however far it leads, the sweep has its least
    led.most = 2
    monkeypatch.setattr(TimeBudget, "fraction_used", PROBE_TIME_FRACTIONS["fine-tuning"])
    assert led.begin().origin == next_origin
