"""Cost-aware proposals: which candidate is chosen, what does not fit, and that proposals can be repeated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from models.trial_config import TrialConfig
from tests.tuning.factories import PREPROCESSINGS, epoch_report, recipe, trial_record
from tuning.common.option_types import ParamValue
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialRecord
from tuning.recipe.schema import SamplerName
from tuning.search.cost_aware import (
    COOLING_START,
    NUM_CANDIDATES,
    CandidateTrial,
    CostAwareProposals,
    cost_exponent,
)
from tuning.search.defaults import MIN_SAMPLED
from tuning.search.samplers import GOOD_FRACTION
from tuning.search.space import SearchSpace
from tuning.search.strategy import Proposal, SearchState
from tuning.search.study import TrialStore, open_trial_store

NUM_TRAIN, NUM_VAL = 1000, 200
RECIPE = recipe(image_size="32,64", sweep="off")
SPACE = SearchSpace(RECIPE)


def open_store(root: Path, sampler: SamplerName = "tpe", seed: int = 0) -> TrialStore:
    def make_config(settings: Mapping[str, ParamValue]) -> TrialConfig:
        return SPACE.trial_config(settings, PREPROCESSINGS)

    root.mkdir(exist_ok=True)
    return open_trial_store(SearchPaths(root), SPACE, make_config, seed, sampler)


def proposals_of(store: TrialStore) -> CostAwareProposals:
    return CostAwareProposals(store, NUM_TRAIN, NUM_VAL)


def state(trials: Sequence[TrialRecord] = (), fraction_used: float = 0.0, seconds_left: float = 100.0) -> SearchState:
    return SearchState(trials, (), fraction_used, seconds_left)


def run_trials(store: TrialStore, count: int) -> list[Mapping[str, ParamValue]]:
    """Run proposals with made-up scores; return their parameters."""
    chosen, proposals = [], proposals_of(store)
    for _ in range(count):
        number = len(store.trials())
        params = proposals.propose(state(store.trials(), fraction_used=number / 40))
        assert params is not None
        trial = store.start(Proposal("sampler", params))
        store.report(trial.trial_uid, epoch_report(1, 0.5 + trial.config.fit.lr + number % 3 / 10))
        store.finish(trial.trial_uid, "pruned" if number % 2 else "complete", "recorded")
        chosen.append(params)
    return chosen


@pytest.fixture
def few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare 16 candidates for each proposal, because building 256 takes half a second."""
    monkeypatch.setattr("tuning.search.cost_aware.NUM_CANDIDATES", 16)


# --- determinism ---


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_resumed_search_proposes_the_same_as_an_uninterrupted_one(
    sampler: SamplerName, tmp_path: Path, few_candidates: None
) -> None:
    uninterrupted = run_trials(open_store(tmp_path / "first", sampler), 12)
    before = run_trials(open_store(tmp_path / "second", sampler), 7)
    assert before + run_trials(open_store(tmp_path / "second", sampler), 5) == uninterrupted
    assert len({str(params) for params in uninterrupted}) == 12


def test_another_seed_gives_other_proposals(tmp_path: Path, few_candidates: None) -> None:
    first, second = (run_trials(open_store(tmp_path / str(seed), seed=seed), 4) for seed in (1, 2))
    assert all(params != other for params, other in zip(first, second, strict=True))


def test_the_started_trial_has_the_proposed_parameters_and_no_fixed_ones(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    params = proposals_of(store).propose(state())
    assert params
    trial = store.start(Proposal("sampler", params))
    assert trial.config == store.config_of(Proposal("sampler", params))
    assert (trial.origin, trial.fixed_params) == ("sampler", {})


def test_candidates_are_neither_started_nor_recorded(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert len({str(candidate.params) for candidate in store.candidates(5)}) == 5
    assert store.trials() == ()
    assert store.start(Proposal("sampler", {})).number == 0


@pytest.mark.parametrize("num_trials", [0, 9])
def test_the_first_candidate_of_the_random_sampler_is_its_own_proposal(
    num_trials: int, tmp_path: Path, few_candidates: None
) -> None:
    store = open_store(tmp_path, "random")
    run_trials(store, num_trials)
    first, *others = store.candidates(3)
    assert store.start(Proposal("sampler", {})).config == first.config
    assert all(other.config != first.config for other in others)
    assert first.log_improvement == others[0].log_improvement == pytest.approx(0)


def test_tpe_expects_different_improvements_of_its_candidates(tmp_path: Path, few_candidates: None) -> None:
    store = open_store(tmp_path)
    run_trials(store, 12)
    improvements = [candidate.log_improvement for candidate in store.candidates(20)]
    assert max(improvements) - min(improvements) > 0.5
    assert max(improvements) <= -math.log(GOOD_FRACTION) + 1e-9


# --- the choice ---


class Candidates:
    """A source of given candidates."""

    def __init__(self, *candidates: CandidateTrial) -> None:
        self.given = candidates
        self.counts: list[int] = []

    def candidates(self, count: int) -> Sequence[CandidateTrial]:
        self.counts.append(count)
        return self.given

    def config_of(self, proposal: Proposal) -> TrialConfig:
        return next(candidate.config for candidate in self.given if candidate.params == proposal.params)


def candidate(name: str, freeze_fraction: float, log_improvement: float = 0.0) -> CandidateTrial:
    params = SPACE.default_trials()[0]
    settings = {**SPACE.default_settings(), "freeze_fraction": freeze_fraction, "augmentation": "none"}
    assert params
    return CandidateTrial({"name": name}, SPACE.trial_config(settings, PREPROCESSINGS), log_improvement)


CHEAP, COSTLY, HEAD = candidate("cheap", 0.9), candidate("costly", 0.0), candidate("head", 1.0)
COSTLY_TRIAL = Proposal("sampler", COSTLY.params)


def choose(*candidates: CandidateTrial, search: SearchState) -> object:
    proposals = CostAwareProposals(Candidates(*candidates), NUM_TRAIN, NUM_VAL)
    params = proposals.propose(search)
    return params and params["name"]


def test_of_equal_improvements_the_cheaper_one_is_proposed() -> None:
    assert choose(COSTLY, CHEAP, search=state()) == "cheap"


def test_at_least_half_of_the_proposals_train_a_block() -> None:
    head = trial_record(1).model_copy(update={"config": HEAD.config})
    assert choose(HEAD, CHEAP, search=state()) == "cheap"
    assert choose(HEAD, CHEAP, search=state([sampled(CHEAP)])) == "head"
    assert choose(HEAD, CHEAP, search=state([sampled(CHEAP), head])) == "cheap"
    assert choose(HEAD, search=state()) == "head"  # a recipe may freeze everything


def test_the_cost_loses_its_influence_as_the_time_is_used() -> None:
    better = COSTLY._replace(log_improvement=0.7)
    assert choose(CHEAP, better, search=state(fraction_used=COOLING_START)) == "cheap"
    assert choose(CHEAP, better, search=state(fraction_used=0.95)) == "costly"


def test_the_exponent_of_the_cost_falls_from_one_to_zero() -> None:
    exponents = [cost_exponent(fraction) for fraction in (0.0, COOLING_START, 0.5, 0.8, 1.0, 1.2)]
    assert exponents[:2] == [1, 1]
    assert exponents[-2:] == [0, 0]
    assert exponents == sorted(exponents, reverse=True)
    assert 1 > exponents[2] > exponents[3] > 0


def test_without_a_time_budget_the_sampler_decides_and_no_candidate_is_compared() -> None:
    source = Candidates(COSTLY, CHEAP)
    proposals = CostAwareProposals(source, NUM_TRAIN, NUM_VAL)
    assert proposals.propose(state(seconds_left=math.inf)) == {}
    assert source.counts == []


def test_the_number_of_candidates_is_limited_and_they_are_sampled_once_for_each_trial() -> None:
    source = Candidates(CHEAP)
    proposals = CostAwareProposals(source, NUM_TRAIN, NUM_VAL)
    for trials in ((), (), [trial_record(0)], [trial_record(0)], [trial_record(0)] * 6000, [trial_record(0)] * 60000):
        proposals.propose(state(trials))
    assert source.counts == [NUM_CANDIDATES, NUM_CANDIDATES, 85, 8]


def sampled(origin: CandidateTrial, number: int = 1) -> TrialRecord:
    """Return a trial of the sampler with the configuration of a candidate."""
    return trial_record(number).model_copy(update={"config": origin.config})


def measured(origin: CandidateTrial, seconds: float) -> TrialRecord:
    """Return the default trial with the configuration of a candidate; its only epoch took ``seconds``."""
    metrics = {"val_balanced_accuracy": 0.5, "val_loss": 0.5, "epoch_s": seconds}
    return trial_record(0).model_copy(update={"config": origin.config, "history": (metrics,)})


ENOUGH = [sampled(COSTLY, number).model_copy(update={"history": ()}) for number in range(1, MIN_SAMPLED + 1)]


def test_what_cannot_end_its_first_epoch_in_the_time_left_is_not_proposed() -> None:
    trials = [measured(COSTLY, 50.0), *ENOUGH]
    better = COSTLY._replace(log_improvement=9.0)
    assert choose(CHEAP, better, search=state(trials, seconds_left=51.0)) == "costly"
    assert choose(CHEAP, better, search=state(trials, seconds_left=49.0)) == "cheap"
    assert choose(better, search=state(trials, seconds_left=49.0)) is None


def test_the_first_trials_share_the_time_left_unless_all_candidates_take_longer() -> None:
    better = COSTLY._replace(log_improvement=9.0)
    trials = [measured(COSTLY, 10.0), sampled(COSTLY).model_copy(update={"history": ()})]
    proposals = CostAwareProposals(Candidates(COSTLY), NUM_TRAIN, NUM_VAL)
    enough_s = (MIN_SAMPLED - 1) * proposals.seconds(COSTLY_TRIAL, trials, epochs=4)  # half of the epochs
    assert choose(CHEAP, better, search=state(trials, seconds_left=enough_s + 1)) == "costly"
    assert choose(CHEAP, better, search=state(trials, seconds_left=enough_s - 1)) == "cheap"
    assert choose(better, search=state(trials, seconds_left=enough_s - 1)) == "costly"


def test_before_any_trial_has_been_measured_everything_fits() -> None:
    assert choose(COSTLY, search=state(seconds_left=0.1)) == "costly"


def test_seconds_are_predicted_from_the_median_of_the_measured_trials() -> None:
    source = Candidates(CHEAP, COSTLY)
    proposals = CostAwareProposals(source, NUM_TRAIN, NUM_VAL)
    trials = [measured(COSTLY, seconds) for seconds in (20.0, 30.0, 1000.0)]
    assert proposals.seconds(COSTLY_TRIAL, trials, epochs=1) == pytest.approx(30.0)
    assert proposals.seconds(COSTLY_TRIAL, trials) > 4 * 25.0 * 0.8
    assert proposals.seconds(COSTLY_TRIAL, []) == 0
