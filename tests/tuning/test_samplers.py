"""What proposes settings: the contract of every sampler, driven through the ledger's own space and study."""

from __future__ import annotations

import random
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from tests.tuning.factories import recipe
from tuning.common.trial_record import ParamValue
from tuning.recipe.schema import SamplerName
from tuning.search.journal_backend import SingleWriterJournalBackend
from tuning.search.samplers import (
    INFRASTRUCTURE_FAILURE,
    MAX_FAILED_RATIO,
    NUM_BEST,
    NUM_RANDOM,
    NUM_RANDOM_RUNNING,
    NUM_RECENT,
    NUM_RECENT_RUNNING,
    SAMPLERS,
    TrialWindow,
    build_sampler,
)
from tuning.search.space import SearchSpace

NAMES = typing.get_args(SamplerName)
Uniform = optuna.distributions.FloatDistribution(0.0, 1.0)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> SamplerName:
    """Return each sampler's name in turn: the tests that take it are the contract."""
    given: SamplerName = request.param
    return given


@pytest.fixture
def open_study(tmp_path: Path) -> Callable[..., Study]:
    """Return what opens the study of a journal, as a process that begins or resumes a search does."""

    def opened(name: SamplerName, seed: int = 0, file: str = "journal") -> Study:
        storage = JournalStorage(SingleWriterJournalBackend(tmp_path / file))
        sampler = build_sampler(name, seed)
        return optuna.create_study(
            study_name="search", storage=storage, sampler=sampler, direction="maximize", load_if_exists=True
        )

    return opened


def test_every_name_that_can_be_asked_for_is_a_sampler() -> None:
    assert set(SAMPLERS) == set(NAMES)


def propose(study: Study, count: int, end: bool = True) -> list[dict[str, ParamValue]]:
    """Ask for the settings of so many trials of a conditional space, one after another; end each in its own way."""
    space, asked = SearchSpace(recipe(image_size="32,64", sweep="off")), []
    for _ in range(count):
        trial = study.ask()
        asked.append(space.suggest(trial))
        if end:
            tell(study, trial)
    return asked


def tell(study: Study, trial: optuna.Trial) -> None:
    score = random.Random(trial.number).random()  # noqa: S311
    trial.report(score, 1)
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.COMPLETE, TrialState.FAIL)
    state = states[trial.number % len(states)]
    study.tell(trial, score if state is TrialState.COMPLETE else None, state)


def test_the_same_seed_and_the_same_trials_give_the_same_proposals(
    name: SamplerName, open_study: Callable[..., Study]
) -> None:
    one, other = (propose(open_study(name, 5, file), 16) for file in ("one", "other"))
    assert one == other


def test_another_seed_gives_other_proposals(name: SamplerName, open_study: Callable[..., Study]) -> None:
    one, other = (propose(open_study(name, seed, str(seed)), 12) for seed in (1, 2))
    assert all(mine != theirs for mine, theirs in zip(one, other, strict=True))


@pytest.mark.parametrize("at", [3, 11])
def test_a_resumed_search_proposes_what_an_uninterrupted_one_would(
    name: SamplerName, at: int, open_study: Callable[..., Study]
) -> None:
    whole = propose(open_study(name, file="whole"), 16)
    first = propose(open_study(name, file="cut"), at)
    assert first + propose(open_study(name, file="cut"), 16 - at) == whole


def test_no_two_proposals_are_alike_even_if_none_has_ended(name: SamplerName, open_study: Callable[..., Study]) -> None:
    study = open_study(name)
    propose(study, 8)
    asked = propose(study, 12, end=False)
    assert len({str(settings) for settings in asked}) == 12


def test_a_setting_is_asked_for_only_where_it_applies(name: SamplerName, open_study: Callable[..., Study]) -> None:
    study = open_study(name)
    propose(study, 24)
    asked = {(trial.params["optimizer"] == "sgd", "sgd_lr" in trial.params) for trial in study.trials}
    assert asked == {(True, True), (False, False)}


def test_a_sampler_leaves_nothing_in_the_study_but_the_settings(
    name: SamplerName, open_study: Callable[..., Study]
) -> None:
    study = open_study(name)
    propose(study, 10)
    assert all(trial.system_attrs == {} and trial.user_attrs == {} for trial in study.trials)


def test_a_start_that_is_enqueued_is_taken_as_it_is(name: SamplerName, open_study: Callable[..., Study]) -> None:
    study, first = open_study(name), SearchSpace(recipe(image_size="32,64", sweep="off")).default_params()
    propose(study, 8)
    study.enqueue_trial(first)
    (settings,) = propose(study, 1)
    assert {settings[key] for key in ("lr", "dropout")} == {first["lr"], first["dropout"]}


def share_above_half(user_attrs: dict[str, Any], state: TrialState = TrialState.FAIL) -> float:
    """Return how many of 40 proposals lie in the upper half of a range, all of whose trials ended in ``state``."""
    study = optuna.create_study(direction="maximize", sampler=build_sampler("tpe", 0))
    for at in range(40):
        x = (at + 0.5) / 40
        if x < 0.5:  # nothing to choose between them
            study.add_trial(create_trial(value=0.5, params={"x": x}, distributions={"x": Uniform}))
        else:
            ended = create_trial(state=state, params={"x": x}, distributions={"x": Uniform}, user_attrs=user_attrs)
            study.add_trial(ended)
    return float(np.mean([study.ask().suggest_float("x", 0, 1) > 0.5 for _ in range(40)]))


def test_tpe_learns_where_trials_fail() -> None:
    assert share_above_half({}) < 0.1


def test_tpe_learns_nothing_from_a_failure_that_the_settings_are_not_to_blame_for() -> None:
    assert share_above_half({INFRASTRUCTURE_FAILURE: True}) > 0.2


def trial(number: int, state: TrialState, score: float | None = None, **user_attrs: object) -> FrozenTrial:
    made = create_trial(
        state=state,
        value=score if state is TrialState.COMPLETE else None,
        params={"x": 0.5},
        distributions={"x": Uniform},
        intermediate_values={} if score is None else {2: score},
        user_attrs=user_attrs,
    )
    made.number = number
    return made


def seen(trials: list[FrozenTrial], seed: int = 0) -> list[FrozenTrial]:
    history = TrialWindow()
    history.update(trials)
    return history.select(np.random.default_rng(seed))


def test_a_failed_trial_is_seen_as_the_worst_and_is_not_changed() -> None:
    failed = trial(1, TrialState.FAIL, 0.9)
    shown = seen([trial(0, TrialState.COMPLETE, 0.1), failed])[1]
    assert (shown.state, shown.value, shown.intermediate_values) == (TrialState.PRUNED, None, {})
    assert (failed.state, failed.intermediate_values) == (TrialState.FAIL, {2: 0.9})


def test_where_all_have_failed_none_is_seen_for_the_best_of_them_is_no_model() -> None:
    assert seen([trial(number, TrialState.FAIL) for number in range(9)]) == []


def test_failed_trials_are_never_among_the_tenth_that_is_taken_for_good() -> None:
    trials = [trial(number, TrialState.FAIL) for number in range(30)] + [trial(30, TrialState.COMPLETE, 0.5)]
    shown = seen(trials)
    assert [one.number for one in shown] == list(range(30 - MAX_FAILED_RATIO, 31))


def test_what_is_seen_of_many_trials_has_a_limit_and_holds_the_best_and_the_newest() -> None:
    ended = [trial(number, TrialState.COMPLETE, (number * 7919) % 2003 / 2003) for number in range(2000)]
    running = [trial(number, TrialState.RUNNING) for number in range(2000, 2500)]
    shown = seen(ended + running)
    assert len(shown) == NUM_BEST + NUM_RECENT + NUM_RANDOM + NUM_RECENT_RUNNING + NUM_RANDOM_RUNNING
    assert [one.number for one in shown] == sorted({one.number for one in shown})
    best = sorted(ended, key=lambda one: -(one.value or 0))[:NUM_BEST]
    assert {one.number for one in shown} >= {one.number for one in best + ended[-50:] + running[-NUM_RECENT_RUNNING:]}


def test_what_is_drawn_from_the_rest_differs_from_trial_to_trial() -> None:
    trials = [trial(number, TrialState.COMPLETE, number / 1000) for number in range(1000)]
    one, same, other = ([one.number for one in seen(trials, seed)] for seed in (1, 1, 2))
    assert one == same != other


def test_the_best_are_those_that_optuna_takes_for_it_complete_ones_before_pruned() -> None:
    complete = [trial(number, TrialState.COMPLETE, 0.1) for number in range(20)]
    pruned = [trial(number, TrialState.PRUNED, number / 1000) for number in range(20, 600)]
    shown = {one.number for one in seen(complete + pruned)}
    assert shown >= {*range(20), *range(595, 600)}


def test_what_is_seen_does_not_depend_on_when_the_trials_were_read() -> None:
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING]
    trials = [trial(number, states[number % 4], (number * 7919) % 2003 / 2003) for number in range(800)]
    history = TrialWindow()
    for read in range(1, 800, 50):  # as they go: the newest twenty still run
        running = [trial(number, TrialState.RUNNING) for number in range(max(0, read - 20), read)]
        history.update(trials[: max(0, read - 20)] + running)
    history.update(trials)
    shown = history.select(np.random.default_rng(3))
    assert [(one.number, one.state) for one in shown] == [(one.number, one.state) for one in seen(trials, 3)]


def test_the_trial_that_is_asked_for_is_not_seen() -> None:
    history = TrialWindow()
    history.update([trial(0, TrialState.COMPLETE, 0.5), trial(1, TrialState.RUNNING), trial(2, TrialState.RUNNING)])
    assert [one.number for one in history.select(np.random.default_rng(0), exclude=2)] == [0, 1]
