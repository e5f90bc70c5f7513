"""Who can win under limits, the Pareto front, and what is measured for it."""

from __future__ import annotations

import json

import pytest

from data.errors import SearchError
from models.profiling.serving_cost import ServingCost, ServingSpec
from tests.tuning.factories import recipe, trial_record
from tests.tuning.test_renderers import rendered
from tuning.common.trial_record import TrialRecord, TrialStatus
from tuning.search.selection import (
    Costs,
    Limits,
    best_per_serving_spec,
    choose,
    on_a_pareto_front,
    pareto_front,
    serving_spec_of,
    within_limits,
)
from tuning.search.serving_costs import measure_serving_costs
from tuning.ui.tables.pareto import as_json, markdown, table

CLASSES = 3


def tried(number: int, score: float | None, backbone: str, status: TrialStatus = "complete") -> TrialRecord:
    """Return a trial of a backbone."""
    result = trial_record(number, score, status)
    network = result.config.network.model_copy(update={"backbone": backbone})
    return result.model_copy(update={"config": result.config.model_copy(update={"network": network})})


def costs(**by_backbone: tuple[float, float]) -> Costs:
    """Return costs by backbone: milliseconds and megabytes."""
    return {
        ServingSpec(backbone, 32, 0, "last", "linear", CLASSES): ServingCost(latency_ms=ms, mb=mb)
        for backbone, (ms, mb) in by_backbone.items()
    }


RESULTS = [
    tried(0, 0.90, "large"),
    tried(1, 0.80, "small"),
    tried(2, 0.85, "small"),
    tried(3, 0.70, "slow"),
    tried(4, 0.60, "tiny"),
    tried(5, 0.99, "tiny", "failed"),
    tried(6, None, "tiny", "pruned"),
]
COSTS = costs(large=(20, 40), small=(5, 10), slow=(30, 5), tiny=(1, 4))


def numbers(trials: list[TrialRecord]) -> list[int]:
    return [trial.number for trial in trials]


# --- who can win ---


def test_without_limits_the_best_wins_and_nothing_need_be_known_of_its_cost() -> None:
    assert choose(RESULTS, {}, Limits(), CLASSES) == RESULTS[0]


@pytest.mark.parametrize(
    ("limits", "winner"),
    [
        (Limits(latency_ms=20), 0),
        (Limits(latency_ms=19.99), 2),
        (Limits(mb=10), 2),
        (Limits(mb=9), 3),
        (Limits(latency_ms=29, mb=9), 4),
    ],
)
def test_a_trial_whose_network_is_too_slow_or_too_large_cannot_win(limits: Limits, winner: int) -> None:
    chosen = choose(RESULTS, COSTS, limits, CLASSES)
    assert chosen is not None
    assert chosen.number == winner


def test_all_that_fit_are_there_best_first_and_none_that_failed_or_has_no_score() -> None:
    assert numbers(within_limits(RESULTS, COSTS, Limits(latency_ms=6), CLASSES)) == [2, 1, 4]


def test_a_trial_of_unknown_cost_cannot_win_under_a_limit() -> None:
    known = costs(tiny=(1, 4))
    assert numbers(within_limits(RESULTS, known, Limits(latency_ms=1000), CLASSES)) == [4]


def test_where_none_fits_the_nearest_is_named_with_its_cost() -> None:
    message = (
        r"must keep max_latency_ms=0\.5 and max_mb=3.* the nearest is tiny at 32 px "
        r"\(1 ms, 4 MB, validation 0\.6000 by trial 4\); raise the limit"
    )
    with pytest.raises(SearchError, match=message):
        choose(RESULTS, COSTS, Limits(latency_ms=0.5, mb=3), CLASSES)


def test_where_nothing_could_be_measured_the_sentence_says_so() -> None:
    with pytest.raises(SearchError, match="no network of this search could be measured; leave the limit out"):
        choose(RESULTS, {}, Limits(mb=3), CLASSES)


@pytest.mark.parametrize("limits", [Limits(), Limits(mb=1)])
def test_without_a_scored_trial_there_is_no_winner(limits: Limits) -> None:
    assert choose(RESULTS[5:], COSTS, limits, CLASSES) is None


# --- the front ---


def test_the_best_trial_of_each_form_is_priced_best_first() -> None:
    assert numbers([one.trial for one in best_per_serving_spec(RESULTS, COSTS, CLASSES)]) == [0, 2, 3, 4]


def test_the_front_holds_what_no_network_beats_both_ways() -> None:
    every = best_per_serving_spec(RESULTS, COSTS, CLASSES)
    assert numbers([one.trial for one in pareto_front(every, "latency_ms")]) == [0, 2, 4]
    assert numbers([one.trial for one in pareto_front(every, "mb")]) == [0, 2, 3, 4]


def test_of_equals_in_score_the_cheaper_is_on_the_front() -> None:
    every = best_per_serving_spec([tried(0, 0.5, "large"), tried(1, 0.5, "small")], COSTS, CLASSES)
    assert numbers([one.trial for one in pareto_front(every, "mb")]) == [1]


def test_the_table_fits_into_80_columns_and_says_which_front_a_network_is_on() -> None:
    lines = rendered(table(best_per_serving_spec(RESULTS, COSTS, CLASSES)))
    assert max(map(len, lines)) <= 80
    assert lines[2].split() == ["0", "0.9000", "20.00", "40.0", "large", "32", "0", "latency,", "size"]
    assert lines[4].split() == ["3", "0.7000", "30.00", "5.0", "slow", "32", "0", "size"]


def test_what_is_beaten_both_ways_is_in_the_json_and_not_in_the_tables() -> None:
    every = best_per_serving_spec([*RESULTS, tried(7, 0.1, "beaten")], {**COSTS, **costs(beaten=(50, 50))}, CLASSES)
    assert 7 not in numbers([one.trial for one in on_a_pareto_front(every)])
    assert "beaten" not in markdown(every)
    last = json.loads(as_json(every))["networks"][-1]
    assert (last["backbone"], last["pareto_front"], last["latency_ms"]) == ("beaten", [], 50)
    assert markdown([]) == ""


# --- what is measured ---


def test_networks_are_measured_by_their_best_score_until_the_time_is_spent() -> None:
    asked: list[str] = []

    def measured(form: ServingSpec) -> ServingCost:
        asked.append(form.backbone)
        return COSTS[form]

    assert measure_serving_costs(RESULTS, CLASSES, Limits(), 60.0, measured) == COSTS
    assert asked == ["large", "small", "slow", "tiny"]
    asked.clear()
    assert list(measure_serving_costs(RESULTS, CLASSES, Limits(), -1.0, measured)) == []
    measure_serving_costs(RESULTS, CLASSES, Limits(latency_ms=6), -1.0, measured)
    assert asked == ["large", "small"]


def test_a_network_that_cannot_be_measured_costs_a_row_and_not_the_search() -> None:
    def measured(form: ServingSpec) -> ServingCost:
        if form.backbone == "large":
            raise NotImplementedError
        return COSTS[form]

    found = measure_serving_costs(RESULTS, CLASSES, Limits(), 60.0, measured)
    assert serving_spec_of(RESULTS[0], CLASSES) not in found
    assert len(found) == 3


def test_the_gate_keeps_the_limits_of_the_search_too() -> None:
    gate = recipe(max_latency_ms="12.5", max_mb="20", min_gain="0.02").gate
    assert (gate.max_latency_ms, gate.max_mb, gate.min_gain) == (12.5, 20.0, 0.02)
    assert recipe().gate.max_mb is None
