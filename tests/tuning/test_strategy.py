"""The search strategy as a pure function of the trials and the time: each phase, their order, waiting and ending."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.tuning.factories import NUM_VAL_IMAGES
from tests.tuning.recorded_search import FOUR_PROBES, Search
from tuning.common.option_types import ParamValue
from tuning.common.trial_record import TrialRecord
from tuning.search.defaults import MIN_SAMPLED
from tuning.search.space import SearchSpace
from tuning.search.strategy import (
    EXPLORATION_SHARE,
    LATEST_START,
    LATEST_SWEEP,
    MAX_INITIAL_FAILURES,
    Leader,
    Proposal,
    SearchState,
    SearchStrategy,
    leader,
    phase_usage,
)


def test_the_phases_follow_each_other_in_order() -> None:
    search = Search(**FOUR_PROBES, trials=4)
    origins = [search.run(score).origin for score in (0.5, 0.9, 0.92, 0.6, 0.7, 0.91, 0.93, 0.5, 0.9, 0.9)]
    assert origins == [*["probe"] * 2, "default", *["probe"] * 2, "fine_tune", *["sampler"] * 2, *["rerun"] * 2]
    assert search.next() == "end"
    assert [(usage.name, usage.num_trials, usage.seconds) for usage in phase_usage(search.trials)] == [
        ("warm-up probes", 2, 20.0),
        ("default", 1, 10.0),
        ("probe sweep", 2, 20.0),
        ("fine-tunes of the best probe", 1, 10.0),
        ("sampler", 2, 20.0),
        ("re-runs of the best", 2, 20.0),
    ]


def test_an_interrupted_trial_comes_first() -> None:
    search = Search()
    first = search.start()
    search.interrupted = [first]
    assert search.next() == first


# --- probes and the default ---


def test_the_warmup_probes_are_those_of_the_first_network() -> None:
    search = Search(**FOUR_PROBES)
    settings = [search.run().settings for _ in range(2)]
    assert [(values["image_size"], values["truncate"]) for values in settings] == [(32, 0), (64, 0)]


def test_the_warmup_ends_after_a_tenth_of_the_time_and_its_other_probes_join_the_sweep() -> None:
    search = Search(**FOUR_PROBES)
    first = search.run()
    search.fraction_used = LATEST_START["warm-up probes"]
    origins = [search.run(0.9).origin for _ in range(4)]
    assert LATEST_START["warm-up probes"] <= 0.1
    assert [first.origin, *origins] == ["probe", "default", "probe", "probe", "probe"]


@pytest.mark.parametrize(
    ("default_score", "expected"), [(0.97, "neither"), (0.98, "defaults"), (0.91, "probes"), (None, "probes")]
)
def test_the_defaults_lead_only_if_significantly_better(default_score: float | None, expected: Leader) -> None:
    # With 100 images, two standard errors of the difference are 0.066 for 0.9 and 0.98, and 0.069 for 0.9 and 0.97.
    search = Search(**{**FOUR_PROBES, "image_size": "32"})
    assert leader(search.trials, NUM_VAL_IMAGES) == "neither"  # no probe has ended
    search.run(0.91)
    search.run(default_score, "complete" if default_score else "failed")
    assert leader(search.trials, NUM_VAL_IMAGES) == expected


@pytest.mark.parametrize(("default_score", "who_leads"), [(0.99, "defaults"), (0.5, "probes"), (0.52, "neither")])
def test_the_better_the_probes_are_the_more_time_the_sweep_has(default_score: float, who_leads: Leader) -> None:
    search = Search(**FOUR_PROBES)
    for score in (0.5, 0.5, default_score):
        search.run(score)
    search.fraction_used = LATEST_SWEEP[who_leads] - 0.01
    assert isinstance(step := search.next(), Proposal)
    assert step.origin == "probe"
    search.fraction_used = LATEST_SWEEP[who_leads]
    assert isinstance(step := search.next(), Proposal)
    assert step.origin == "fine_tune"


def test_the_sweep_is_over_once_a_later_phase_has_begun() -> None:
    search = Search(**FOUR_PROBES)
    for score in (0.5, 0.6, 0.9):
        search.run(score)
    search.fraction_used = LATEST_START["probe sweep"]
    assert search.run().origin == "fine_tune"
    search.fraction_used = 0.0  # resumed with a new budget
    assert search.strategy.probes_left(search.trials) == []
    assert [search.run().origin for _ in range(2)] == ["sampler", "rerun"]


def test_the_defaults_of_all_variants_start_before_the_sampler() -> None:
    variants = [{"name": name, "settings": {"dropout": dropout}} for name, dropout in (("a", "0"), ("b", "0.5"))]
    search = Search(variants=variants)
    trials = [search.run() for _ in range(3)]
    assert [trial.origin for trial in trials] == ["default", "default", "sampler"]
    assert [trial.settings["variant"] for trial in trials[:2]] == ["a", "b"]


# --- fine-tunes ---


@pytest.mark.parametrize(("default_score", "fractions"), [(0.97, [0.5, 0.2]), (0.99, [0.0, 0.2])])
def test_fewer_blocks_are_frozen_if_the_default_is_significantly_better_than_the_probes(
    default_score: float, fractions: list[float]
) -> None:
    search = Search(**{**FOUR_PROBES, "image_size": "32", "truncate": "3,4"}, trials=99)
    for score in (0.9, default_score, 0.91):
        search.run(score)
    first = search.run(0.99)
    assert [search.run().origin for _ in range(MIN_SAMPLED)] == ["sampler"] * MIN_SAMPLED
    second = search.run(0.99)
    assert [first.settings["freeze_fraction"], second.settings["freeze_fraction"]] == fractions
    assert [first.origin, second.origin, search.run().origin] == ["fine_tune", "fine_tune", "sampler"]


@pytest.mark.parametrize(
    ("scores", "image_size", "truncate"),
    [((0.86, 0.9, 0.88, 0.89), 32, 3), ((0.6, 0.9, 0.8, 0.89), 64, 0)],  # one standard error of 0.9 is 0.03
)
def test_among_probes_within_one_standard_error_the_best_of_the_smallest_size_is_fine_tuned(
    scores: tuple[float, ...], image_size: int, truncate: int
) -> None:
    search = Search(**{**FOUR_PROBES, "truncate": "0,3"})
    for score in (*scores[:2], 0.5, *scores[2:]):
        search.run(score)
    fine_tune = search.run()
    assert (fine_tune.settings["image_size"], fine_tune.settings["truncate"]) == (image_size, truncate)


def test_a_probe_that_ends_late_is_fine_tuned_but_there_are_never_more_than_two_fine_tunes() -> None:
    search = Search(**FOUR_PROBES, trials=99)
    for score in (0.9, 0.5, 0.5, 0.5):
        search.run(score)
    late = search.start()
    search.run()
    search.finish(late, 0.99)
    origins = [search.run().origin for _ in range(2 * MIN_SAMPLED)]
    assert origins.count("fine_tune") == 1
    assert origins[MIN_SAMPLED] == "fine_tune"
    last = next(trial for trial in reversed(search.trials) if trial.origin == "fine_tune")
    assert last.settings["truncate"] == late.settings["truncate"]


class FakeProposals:
    """Predicts ``trial_s`` for every trial and a tenth of it for one epoch; proposes ``params``."""

    def __init__(self, trial_s: float, params: Mapping[str, ParamValue] | None = None) -> None:
        self.trial_s = trial_s
        self.params = params

    def propose(self, state: SearchState) -> Mapping[str, ParamValue] | None:
        return self.params

    def seconds(
        self, params: Mapping[str, ParamValue], trials: Sequence[TrialRecord], epochs: int | None = None
    ) -> float:
        assert params
        return self.trial_s / 10 if epochs == 1 else self.trial_s

    def rerun_seconds(self, trial: TrialRecord, fold: int | None, trials: Sequence[TrialRecord]) -> float:
        return trial.seconds


def search_with_probes(proposals: FakeProposals, **options: Any) -> Search:
    """Return a search of 100 s whose probes and default have ended."""
    search = Search(**{**FOUR_PROBES, "trials": 99, **options})
    search.strategy = SearchStrategy(search.recipe, search.space, NUM_VAL_IMAGES, proposals=proposals)
    search.seconds_left = 100.0
    for _ in range(5):
        search.run()
    return search


@pytest.mark.parametrize(("trial_s", "origin"), [(25.0, "fine_tune"), (26.0, "sampler")])
def test_only_a_fine_tune_that_takes_a_quarter_of_the_time_precedes_the_sampler(trial_s: float, origin: str) -> None:
    search = search_with_probes(FakeProposals(trial_s, params={}))
    assert search.start().origin == origin
    search.trials.pop()
    search.fraction_used, search.seconds_left = 0.2, 80.0  # a quarter of all the time, not of the rest
    assert search.start().origin == origin


@pytest.mark.parametrize(("seconds_left", "origin"), [(30.0, "fine_tune"), (29.0, "sampler")])
def test_a_long_fine_tune_starts_after_the_sampler_if_its_first_epoch_fits(seconds_left: float, origin: str) -> None:
    search = search_with_probes(FakeProposals(300.0, params={}))
    assert [search.run().origin for _ in range(MIN_SAMPLED)] == ["sampler"] * MIN_SAMPLED
    search.seconds_left = seconds_left
    assert search.start().origin == origin


def test_if_no_proposal_of_the_sampler_fits_nothing_is_proposed() -> None:
    search = search_with_probes(FakeProposals(1000.0, params=None), rerun_top_k=0)
    assert search.next() == "end"


def test_the_sampler_may_use_the_time_of_the_reruns_if_none_of_them_fits() -> None:
    search = search_with_probes(FakeProposals(1.0, params={}))
    search.fraction_used = LATEST_START["sampler"]
    assert search.start().origin == "rerun"
    search.trials.pop()
    search.seconds_left = 9.0  # each trial took 10 s
    assert search.start().origin == "sampler"
    search.fraction_used = 1.0
    assert search.next() == "end"


def test_if_all_probes_fail_the_sampler_proposes_next() -> None:
    search = Search(**FOUR_PROBES)
    for score in (None, None, 0.9, None, None):
        search.run(score, "complete" if score else "failed")
    assert search.run().origin == "sampler"


# --- re-runs and the end ---


def test_the_search_ends_after_the_trials_and_the_reruns_of_the_best() -> None:
    search = Search()
    origins = [search.run(score).origin for score in (0.5, 0.6, 0.7, 0.1, 0.1)]
    assert origins == ["default", "sampler", "sampler", "rerun", "rerun"]
    assert search.next() == "end"


def test_without_reruns_the_search_ends_after_its_trials() -> None:
    search = Search(rerun_top_k=0)
    assert [search.run().origin for _ in range(3)] == ["default", "sampler", "sampler"]
    assert search.next() == "end"


def test_the_search_waits_for_running_trials_because_they_may_be_rerun() -> None:
    search = Search()
    slow = search.start()
    for score in (0.5, 0.6):
        search.run(score)
    for _ in range(2):
        assert search.run(0.1).origin == "rerun"
    assert search.next() == "wait"
    search.finish(slow, 0.9)
    assert search.run().rerun_of == slow.trial_uid
    assert search.next() == "end"


def test_a_fifth_of_the_time_is_reserved_for_reruns() -> None:
    with_reruns, without_reruns = Search(trials=9), Search(trials=9, rerun_top_k=0)
    for search in (with_reruns, without_reruns):
        search.run(0.6)
        search.run(0.5)
        search.fraction_used = LATEST_START["sampler"]
    assert with_reruns.start().origin == "rerun"
    assert without_reruns.start().origin == "sampler"


def test_only_trials_that_fit_into_the_time_left_are_rerun() -> None:
    search = Search(trials=2)
    search.run(0.6)
    search.run(0.5)
    search.seconds_left = 12.0  # a trial took 10 s, and a re-run may take a quarter longer
    assert search.next() == "end"
    search.seconds_left = 13.0
    assert search.start().origin == "rerun"


def test_no_time_budget_ends_a_search_before_its_first_epoch() -> None:
    search = Search()
    search.fraction_used = 1.0
    default = search.start()
    assert search.start().origin == "sampler"
    search.finish(default, 0.5)
    assert search.next() == "end"


def test_a_search_whose_first_trials_all_fail_ends() -> None:
    search = Search(trials=50)
    for _ in range(MAX_INITIAL_FAILURES):
        search.run(None, "failed")
    assert search.next() == "end"


def test_a_search_with_one_result_goes_on_after_many_failures() -> None:
    search = Search(trials=50)
    search.run(0.5)
    for _ in range(MAX_INITIAL_FAILURES):
        search.run(None, "failed")
    assert search.start().origin == "sampler"


# --- probes on more images ---


def large_search(**options: Any) -> Search:
    search = Search(**{"sweep": "on", "image_size": "32,64", "truncate": "0,1,2", "validation": "split", **options})
    search.space = SearchSpace(search.recipe, probe_images=(2_000, 8_000, 32_000))
    search.strategy = SearchStrategy(search.recipe, search.space, NUM_VAL_IMAGES)
    return search


def test_the_best_third_of_the_probes_continues_on_more_images_as_soon_as_it_is_known() -> None:
    search = large_search()
    images: list[int | None] = []
    scores = {2_000: iter((0.50, 0.51, 0.52, 0.1, 0.53, 0.54)), 8_000: iter((0.7, 0.6, 0.5)), 32_000: iter((0.8,))}
    while (trial := search.start()).origin in ("probe", "default"):
        number = trial.config.images_per_epoch
        images.append(number)
        search.finish(trial, next(scores[number]) if number else 0.3)
    # two warm-up probes and the default; a third probe makes the first promotion, which continues at once
    assert images == [2_000, 2_000, None, 2_000, 8_000, 32_000, 2_000, 2_000, 8_000, 2_000, 8_000]
    networks = [_network(each) for each in search.trials]
    assert [networks[index] for index in (4, 5, 8, 10)] == [networks[index] for index in (3, 4, 7, 9)]
    assert trial.origin == "fine_tune"


def test_a_probe_does_not_continue_before_it_is_known_to_be_among_the_best() -> None:
    search = large_search(truncate="0")
    running = [search.start(), search.start()]
    search.run(0.3)
    search.finish(running[0], 0.9)
    assert search.start().origin == "fine_tune"  # of two, a third is none
    search.finish(running[1], 0.5)
    promoted = search.start()
    assert (_network(promoted), promoted.config.images_per_epoch) == (_network(running[0]), 8_000)


def test_probes_continue_after_the_time_of_the_sweep_and_end_with_the_exploration() -> None:
    search = large_search(truncate="0,1,2")
    for _ in range(3):
        search.run(0.5)
    search.fraction_used = LATEST_START["probe sweep"]
    trial = search.start()  # the sweep is over, so the best third of its probes is known
    assert (trial.origin, trial.config.images_per_epoch) == ("probe", 8_000)
    search.finish(trial, 0.6)
    search.fraction_used = EXPLORATION_SHARE
    assert search.start().origin != "probe"


def _network(trial: TrialRecord) -> tuple[int, int]:
    return trial.config.preprocessing.image_size, trial.config.network.truncate
