"""The work that is done while the trials of a search run: when, in which order, and how much of it."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from models.profiling.serving_cost import ServingSpec
from tests.tuning.factories import recipe, trial_record
from tuning.common.trial_record import TrialOrigin, TrialRecord
from tuning.workflows import work_ahead
from tuning.workflows.work_ahead import MAX_EXPORTS, WorkAhead

COST_S = 3.0  # of measuring a network


class Fixture:
    """A search whose clock and work are replaced; ``done`` lists what was done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, minutes: float = 5.0) -> None:
        self.done: list[str] = []
        self.time_s = 0.0
        self.budget = SimpleNamespace(fraction_used=0.0)
        dataset = SimpleNamespace(classes=("a", "b"))
        search: Any = SimpleNamespace(
            dataset=dataset, recipe=recipe(minutes=minutes, trials=None), inputs=SimpleNamespace(preprocessings=[])
        )
        budget: Any = self.budget
        self.ahead = WorkAhead(search, [], budget)
        monkeypatch.setattr(work_ahead, "serving_cost", self._measure)
        monkeypatch.setattr(work_ahead, "pixel_baseline", lambda _: self.done.append("baseline") or 0.5)
        monkeypatch.setattr(WorkAhead, "_export", self._export)
        monkeypatch.setattr(work_ahead.time, "thread_time", lambda: self.time_s)

    def _measure(self, spec: ServingSpec) -> None:
        self.done.append(f"cost {spec.image_size}")
        self.time_s += COST_S

    def _export(self, trials: list[TrialRecord]) -> None:
        self.done.append(f"export {len(trials)}")
        self.ahead._num_exports += 1

    def end(self, number: int, image_size: int, loss: float, origin: TrialOrigin = "probe") -> None:
        """End a trial."""
        trial = trial_record(number, 1 - loss)
        preprocessing = trial.config.preprocessing.__class__(image_size)
        config = trial.config.model_copy(update={"preprocessing": preprocessing})
        history = tuple({**epoch, "val_loss": loss} for epoch in trial.history)
        self.ahead.on_trial_end(trial.model_copy(update={"config": config, "history": history, "origin": origin}), None)

    def work(self) -> list[str]:
        """Work until there is nothing to do; return the steps."""
        self.done.clear()
        while self.ahead._step():
            pass
        return list(self.done)


@pytest.fixture
def fixture(monkeypatch: pytest.MonkeyPatch) -> Fixture:
    return Fixture(monkeypatch)


def test_nothing_is_measured_before_half_of_the_time_and_then_the_best_networks_first(fixture: Fixture) -> None:
    fixture.end(0, 96, loss=0.4)
    fixture.end(1, 128, loss=0.2)
    assert fixture.work() == []
    fixture.budget.fraction_used = 0.5
    assert fixture.work() == ["cost 128", "cost 96", "baseline"]
    assert fixture.ahead.measured_s == 2 * COST_S
    assert fixture.ahead.pixel_baseline == 0.5


def test_measuring_ends_with_its_time(fixture: Fixture) -> None:
    for number in range(5):
        fixture.end(number, 64 + 32 * number, loss=0.1 + 0.1 * number)
    fixture.budget.fraction_used = 0.5
    assert fixture.work() == ["cost 64", "cost 96", "cost 128", "baseline"]  # 7.5 s of 5 minutes


def test_likely_winners_are_exported_once_the_reruns_have_begun_and_again_after_other_trials(fixture: Fixture) -> None:
    fixture.end(0, 96, loss=0.4)
    fixture.ahead.on_trial_start(trial_record(1).model_copy(update={"origin": "rerun"}))
    assert fixture.work() == ["cost 96", "baseline", "export 1"]
    assert fixture.work() == []
    for number in range(1, 4):
        fixture.end(number, 96, loss=0.3)
        expected = [f"export {number + 1}"] if number < MAX_EXPORTS else []
        assert fixture.work() == expected


def test_an_error_ends_the_work_without_a_message(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> float:
        raise ValueError("no pixels")

    monkeypatch.setattr(work_ahead, "pixel_baseline", fail)
    fixture.end(0, 96, loss=0.4)
    fixture.budget.fraction_used = 0.5
    thread = threading.Thread(target=fixture.ahead.run, args=(threading.Event(),))
    thread.start()
    thread.join()  # it would not end without the error
    assert capsys.readouterr().err == ""
    assert fixture.ahead.pixel_baseline is None
