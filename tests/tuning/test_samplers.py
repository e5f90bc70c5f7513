"""Samplers: the contract of every sampler, on a real search space and study, and the trial window."""

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
    study, params = open_study(name), SearchSpace(recipe(image_size="32,64", sweep="off")).default_params()
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


def select(trials: list[FrozenTrial], seed: int = 0) -> list[FrozenTrial]:
    window = TrialWindow()
    window.update(trials)
    return window.select(np.random.default_rng(seed))


def numbers(trials: list[FrozenTrial]) -> list[int]:
    return [trial.number for trial in trials]


def test_a_failed_trial_is_selected_as_the_worst_one_and_is_not_changed() -> None:
    failed = frozen_trial(1, TrialState.FAIL, 0.9)
    selected = select([frozen_trial(0, TrialState.COMPLETE, 0.1), failed])[1]
    assert (selected.state, selected.value, selected.intermediate_values) == (TrialState.PRUNED, None, {})
    assert (failed.state, failed.intermediate_values) == (TrialState.FAIL, {2: 0.9})


def test_if_all_trials_have_failed_none_is_selected_as_a_good_one() -> None:
    assert select([frozen_trial(number, TrialState.FAIL) for number in range(9)]) == []


def test_failed_trials_are_never_in_the_best_tenth() -> None:
    trials = [frozen_trial(number, TrialState.FAIL) for number in range(30)]
    trials.append(frozen_trial(30, TrialState.COMPLETE, 0.5))
    assert numbers(select(trials)) == list(range(30 - MAX_FAILED_RATIO, 31))


def test_the_window_has_a_maximum_size_and_includes_the_best_and_the_most_recent_trials() -> None:
    ended = [frozen_trial(number, TrialState.COMPLETE, (number * 7919) % 2003 / 2003) for number in range(2000)]
    running = [frozen_trial(number, TrialState.RUNNING) for number in range(2000, 2500)]
    selected = numbers(select(ended + running))
    assert len(selected) == NUM_BEST + NUM_RECENT + NUM_RANDOM + NUM_RECENT_RUNNING + NUM_RANDOM_RUNNING
    assert selected == sorted(set(selected))
    best = sorted(ended, key=lambda trial: -(trial.value or 0))[:NUM_BEST]
    assert set(selected) >= set(numbers(best + ended[-50:] + running[-NUM_RECENT_RUNNING:]))


def test_the_random_trials_depend_on_the_seed() -> None:
    trials = [frozen_trial(number, TrialState.COMPLETE, number / 1000) for number in range(1000)]
    first, same, other = (numbers(select(trials, seed)) for seed in (1, 1, 2))
    assert first == same != other


def test_complete_trials_are_better_than_pruned_ones_as_in_optuna() -> None:
    complete = [frozen_trial(number, TrialState.COMPLETE, 0.1) for number in range(20)]
    pruned = [frozen_trial(number, TrialState.PRUNED, number / 1000) for number in range(20, 600)]
    assert set(numbers(select(complete + pruned))) >= {*range(20), *range(595, 600)}


def test_the_selection_does_not_depend_on_when_the_window_was_updated() -> None:
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING]
    trials = [frozen_trial(number, states[number % 4], (number * 7919) % 2003 / 2003) for number in range(800)]
    window = TrialWindow()
    for num_trials in range(1, 800, 50):  # during the search, the most recent twenty trials are running
        num_ended = max(0, num_trials - 20)
        running = [frozen_trial(number, TrialState.RUNNING) for number in range(num_ended, num_trials)]
        window.update(trials[:num_ended] + running)
    window.update(trials)
    selected = window.select(np.random.default_rng(3))
    assert [(trial.number, trial.state) for trial in selected] == [
        (trial.number, trial.state) for trial in select(trials, 3)
    ]


def test_the_trial_that_is_being_sampled_is_not_selected() -> None:
    window = TrialWindow()
    states = (TrialState.COMPLETE, TrialState.RUNNING, TrialState.RUNNING)
    window.update([frozen_trial(number, state, 0.5) for number, state in enumerate(states)])
    assert numbers(window.select(np.random.default_rng(0), exclude=2)) == [0, 1]
