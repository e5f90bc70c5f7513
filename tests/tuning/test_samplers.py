"""Samplers: the contract of every sampler, on a real search space and study, and the trials that it sees."""

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
from tuning.common.option_types import ParamValue
from tuning.recipe.schema import SamplerName
from tuning.search.journal_backend import SingleWriterJournalBackend
from tuning.search.samplers import (
    INFRASTRUCTURE_FAILURE,
    MAX_FAILED_RATIO,
    SAMPLERS,
    build_sampler,
    visible_trials,
)
from tuning.search.space import SearchSpace

NAMES = typing.get_args(SamplerName)
UNIFORM = optuna.distributions.FloatDistribution(0.0, 1.0)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> SamplerName:
    """Return each sampler's name in turn: the tests that take it are the contract."""
    sampler_name: SamplerName = request.param
    return sampler_name


@pytest.fixture
def open_study(tmp_path: Path) -> Callable[..., Study]:
    """Return a function that opens the study of a journal, like a process that starts or resumes a search."""

    def open_journal(name: SamplerName, seed: int = 0, file: str = "journal") -> Study:
        storage = JournalStorage(SingleWriterJournalBackend(tmp_path / file))
        sampler = build_sampler(name, seed)
        return optuna.create_study(
            study_name="search", storage=storage, sampler=sampler, direction="maximize", load_if_exists=True
        )

    return open_journal


def test_every_sampler_name_has_a_factory() -> None:
    assert set(SAMPLERS) == set(NAMES)


def propose(study: Study, count: int, should_end: bool = True) -> list[dict[str, ParamValue]]:
    """Return the settings of ``count`` trials of a conditional space; end them with different states."""
    space, proposals = SearchSpace(recipe(image_size="32,64", sweep="off")), []
    for _ in range(count):
        trial = study.ask()
        proposals.append(space.suggest(trial))
        if should_end:
            end_trial(study, trial)
    return proposals


def end_trial(study: Study, trial: optuna.Trial) -> None:
    score = random.Random(trial.number).random()  # noqa: S311
    trial.report(score, 1)
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.COMPLETE, TrialState.FAIL)
    state = states[trial.number % len(states)]
    study.tell(trial, score if state is TrialState.COMPLETE else None, state)


def test_equal_seeds_and_trials_give_equal_proposals(name: SamplerName, open_study: Callable[..., Study]) -> None:
    first, second = (propose(open_study(name, 5, file), 16) for file in ("first", "second"))
    assert first == second


def test_another_seed_gives_other_proposals(name: SamplerName, open_study: Callable[..., Study]) -> None:
    first, second = (propose(open_study(name, seed, str(seed)), 12) for seed in (1, 2))
    assert all(settings != other for settings, other in zip(first, second, strict=True))


@pytest.mark.parametrize("num_before", [3, 11])
def test_a_resumed_search_proposes_the_same_as_an_uninterrupted_one(
    name: SamplerName, num_before: int, open_study: Callable[..., Study]
) -> None:
    uninterrupted = propose(open_study(name, file="uninterrupted"), 16)
    before = propose(open_study(name, file="resumed"), num_before)
    assert before + propose(open_study(name, file="resumed"), 16 - num_before) == uninterrupted


def test_the_proposals_of_concurrent_trials_differ(name: SamplerName, open_study: Callable[..., Study]) -> None:
    study = open_study(name)
    propose(study, 8)
    proposals = propose(study, 12, should_end=False)
    assert len({str(settings) for settings in proposals}) == 12


def test_a_parameter_is_sampled_only_if_it_applies(name: SamplerName, open_study: Callable[..., Study]) -> None:
    study = open_study(name)
    propose(study, 24)
    pairs = {(trial.params["optimizer"] == "sgd", "sgd_lr" in trial.params) for trial in study.trials}
    assert pairs == {(True, True), (False, False)}


def test_a_sampler_writes_only_parameters_to_the_study(name: SamplerName, open_study: Callable[..., Study]) -> None:
    study = open_study(name)
    propose(study, 10)
    assert all(trial.system_attrs == {} and trial.user_attrs == {} for trial in study.trials)


def test_an_enqueued_trial_is_proposed_unchanged(name: SamplerName, open_study: Callable[..., Study]) -> None:
    study, params = open_study(name), SearchSpace(recipe(image_size="32,64", sweep="off")).default_trials()[0]
    propose(study, 8)
    study.enqueue_trial(params)
    (settings,) = propose(study, 1)
    assert {settings[key] for key in ("lr", "dropout")} == {params["lr"], params["dropout"]}


def fraction_above_half(user_attrs: dict[str, Any], state: TrialState = TrialState.FAIL) -> float:
    """Return the fraction of 40 proposals in the upper half of a range in which all trials ended in ``state``."""
    study = optuna.create_study(direction="maximize", sampler=build_sampler("tpe", 0))
    for number in range(40):
        x = (number + 0.5) / 40
        if x < 0.5:  # all equally good
            study.add_trial(create_trial(value=0.5, params={"x": x}, distributions={"x": UNIFORM}))
        else:
            ended = create_trial(state=state, params={"x": x}, distributions={"x": UNIFORM}, user_attrs=user_attrs)
            study.add_trial(ended)
    return float(np.mean([study.ask().suggest_float("x", 0, 1) > 0.5 for _ in range(40)]))


def test_tpe_avoids_regions_where_trials_fail() -> None:
    assert fraction_above_half({}) < 0.1


def test_tpe_ignores_infrastructure_failures() -> None:
    assert fraction_above_half({INFRASTRUCTURE_FAILURE: True}) > 0.2


def frozen_trial(number: int, state: TrialState, score: float | None = None, **user_attrs: object) -> FrozenTrial:
    trial = create_trial(
        state=state,
        value=score if state is TrialState.COMPLETE else None,
        params={"x": 0.5},
        distributions={"x": UNIFORM},
        intermediate_values={} if score is None else {2: score},
        user_attrs=user_attrs,
    )
    trial.number = number
    return trial


def numbers(trials: list[FrozenTrial]) -> list[int]:
    return [trial.number for trial in trials]


def test_a_sampler_sees_a_failed_trial_as_the_worst_one_and_does_not_change_it() -> None:
    failed = frozen_trial(1, TrialState.FAIL, 0.9)
    seen = visible_trials([frozen_trial(0, TrialState.COMPLETE, 0.1), failed])[1]
    assert (seen.state, seen.value, seen.intermediate_values) == (TrialState.PRUNED, None, {})
    assert (failed.state, failed.intermediate_values) == (TrialState.FAIL, {2: 0.9})


def test_if_all_trials_have_failed_a_sampler_sees_none_of_them() -> None:
    assert visible_trials([frozen_trial(number, TrialState.FAIL) for number in range(9)]) == []


def test_failed_trials_are_never_in_the_best_tenth() -> None:
    trials = [frozen_trial(number, TrialState.FAIL) for number in range(30)]
    trials.append(frozen_trial(30, TrialState.COMPLETE, 0.5))
    assert numbers(visible_trials(trials)) == list(range(30 - MAX_FAILED_RATIO, 31))


def test_a_sampler_sees_all_trials_but_infrastructure_failures() -> None:
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING]
    trials = [frozen_trial(number, states[number % 4], number / 1000) for number in range(400)]
    trials.append(frozen_trial(400, TrialState.FAIL, 0.5, **{INFRASTRUCTURE_FAILURE: True}))
    assert numbers(visible_trials(trials)) == list(range(400))


def test_tpe_avoids_the_settings_of_running_trials() -> None:
    """Without them, all proposals would be near 0.25, the best value so far."""
    study = optuna.create_study(direction="maximize", sampler=build_sampler("tpe", 0))
    for number in range(20):
        x = (number + 0.5) / 20
        study.add_trial(create_trial(value=-abs(x - 0.25), params={"x": x}, distributions={"x": UNIFORM}))
    before = study.ask().suggest_float("x", 0, 1)
    running = create_trial(state=TrialState.RUNNING, params={"x": before}, distributions={"x": UNIFORM})
    for _ in range(20):
        study.add_trial(running)
    sampled = [study.ask().suggest_float("x", 0, 1) for _ in range(10)]
    assert min(abs(x - before) for x in sampled) > 0.01
