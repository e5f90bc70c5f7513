"""Selecting the winner under limits, the Pareto front, and measuring serving costs."""

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
    measure_serving_costs,
    on_a_pareto_front,
    pareto_front,
    serving_spec_of,
    within_limits,
)
from tuning.ui.tables.pareto import as_json, table

NUM_CLASSES = 3


def trial_of(number: int, score: float | None, backbone: str, status: TrialStatus = "complete") -> TrialRecord:
    """Return a trial of a backbone."""
    trial = trial_record(number, score, status)
    network = trial.config.network.model_copy(update={"backbone": backbone})
    return trial.model_copy(update={"config": trial.config.model_copy(update={"network": network})})


def costs(**by_backbone: tuple[float, float]) -> Costs:
    """Return costs by backbone: milliseconds and megabytes."""
    return {
        ServingSpec(backbone, 32, 0, "last", "linear", NUM_CLASSES): ServingCost(latency_ms=ms, mb=mb)
        for backbone, (ms, mb) in by_backbone.items()
    }


TRIALS = [
    trial_of(0, 0.90, "large"),
    trial_of(1, 0.80, "small"),
    trial_of(2, 0.85, "small"),
    trial_of(3, 0.70, "slow"),
    trial_of(4, 0.60, "tiny"),
    trial_of(5, 0.99, "tiny", "failed"),
    trial_of(6, None, "tiny", "pruned"),
]
COSTS = costs(large=(20, 40), small=(5, 10), slow=(30, 5), tiny=(1, 4))


def numbers(trials: list[TrialRecord]) -> list[int]:
    return [trial.number for trial in trials]


# --- limits ---


def test_without_limits_the_best_trial_wins_even_if_no_cost_is_known() -> None:
    assert within_limits(TRIALS, {}, {}, NUM_CLASSES)[0] == TRIALS[0]


@pytest.mark.parametrize(
    ("limits", "winner"),
    [
        ({"latency_ms": 20}, 0),
        ({"latency_ms": 19.99}, 2),
        ({"mb": 10}, 2),
        ({"mb": 9}, 3),
        ({"latency_ms": 29, "mb": 9}, 4),
    ],
)
def test_a_trial_with_a_network_that_is_too_slow_or_too_large_cannot_win(limits: Limits, winner: int) -> None:
    assert within_limits(TRIALS, COSTS, limits, NUM_CLASSES)[0].number == winner


def test_trials_within_the_limits_are_ordered_best_first_without_failed_and_unscored_ones() -> None:
    assert numbers(within_limits(TRIALS, COSTS, {"latency_ms": 6}, NUM_CLASSES)) == [2, 1, 4]


def test_a_trial_of_unknown_cost_cannot_win_under_a_limit() -> None:
    known = costs(tiny=(1, 4))
    assert numbers(within_limits(TRIALS, known, {"latency_ms": 1000}, NUM_CLASSES)) == [4]


def test_if_no_trial_is_within_the_limits_the_error_names_the_closest() -> None:
    message = (
        r"must keep max_latency_ms=0\.5 and max_mb=3.* the closest is tiny at 32 px "
        r"\(1 ms, 4 MB, validation 0\.6000 in trial 4\); raise the limit"
    )
    with pytest.raises(SearchError, match=message):
        within_limits(TRIALS, COSTS, {"latency_ms": 0.5, "mb": 3}, NUM_CLASSES)


def test_if_no_network_could_be_measured_the_error_suggests_to_remove_the_limit() -> None:
    with pytest.raises(SearchError, match="no network of this search could be measured; remove the limit"):
        within_limits(TRIALS, {}, {"mb": 3}, NUM_CLASSES)


@pytest.mark.parametrize("limits", [{}, {"mb": 1}])
def test_without_a_scored_trial_there_is_no_winner(limits: Limits) -> None:
    assert within_limits(TRIALS[5:], COSTS, limits, NUM_CLASSES) == []


# --- Pareto front ---


def test_each_serving_spec_is_represented_by_its_best_trial() -> None:
    costed_trials = best_per_serving_spec(TRIALS, COSTS, NUM_CLASSES)
    assert numbers([costed.trial for costed in costed_trials]) == [0, 2, 3, 4]


def test_the_pareto_front_has_the_trials_that_no_other_beats_in_score_and_cost() -> None:
    costed_trials = best_per_serving_spec(TRIALS, COSTS, NUM_CLASSES)
    assert numbers([costed.trial for costed in pareto_front(costed_trials, "latency_ms")]) == [0, 2, 4]
    assert numbers([costed.trial for costed in pareto_front(costed_trials, "mb")]) == [0, 2, 3, 4]


def test_among_equal_scores_the_cheaper_trial_is_on_the_pareto_front() -> None:
    costed_trials = best_per_serving_spec([trial_of(0, 0.5, "large"), trial_of(1, 0.5, "small")], COSTS, NUM_CLASSES)
    assert numbers([costed.trial for costed in pareto_front(costed_trials, "mb")]) == [1]


def test_the_table_fits_into_80_columns_and_names_the_pareto_fronts_of_a_network() -> None:
    lines = rendered(table(best_per_serving_spec(TRIALS, COSTS, NUM_CLASSES), 7))
    assert lines[0] == "Accuracy and cost before packaging, 4 of 7 networks"
    assert max(map(len, lines)) <= 80
    assert lines[2].split() == ["0", "0.9000", "20.00", "40.0", "large", "32", "0", "latency,", "size"]
    assert lines[4].split() == ["3", "0.7000", "30.00", "5.0", "slow", "32", "0", "size"]


def test_dominated_networks_are_in_the_json_and_not_in_the_tables() -> None:
    trials, all_costs = [*TRIALS, trial_of(7, 0.1, "dominated")], {**COSTS, **costs(dominated=(50, 50))}
    costed_trials = best_per_serving_spec(trials, all_costs, NUM_CLASSES)
    assert 7 not in numbers([costed.trial for costed in on_a_pareto_front(costed_trials)])
    assert "dominated" not in table(costed_trials, 9).to_markdown()
    last = json.loads(as_json(costed_trials))["networks"][-1]
    assert (last["backbone"], last["pareto_front"], last["latency_ms"]) == ("dominated", [], 50)


# --- serving costs ---


def test_networks_are_measured_in_the_order_of_their_best_scores_within_the_time_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[str] = []

    def measure(spec: ServingSpec) -> ServingCost:
        measured.append(spec.backbone)
        return COSTS[spec]

    monkeypatch.setattr("tuning.search.selection.serving_cost", measure)
    assert measure_serving_costs(TRIALS, NUM_CLASSES, {}, 60.0) == COSTS
    assert measured == ["large", "small", "slow", "tiny"]
    measured.clear()
    assert list(measure_serving_costs(TRIALS, NUM_CLASSES, {}, -1.0)) == []
    measure_serving_costs(TRIALS, NUM_CLASSES, {"latency_ms": 6}, -1.0)
    assert measured == ["large", "small"]
    monkeypatch.setattr("tuning.search.selection.is_measured", lambda spec: spec.backbone == "tiny")
    assert [spec.backbone for spec in measure_serving_costs(TRIALS, NUM_CLASSES, {}, -1.0)] == ["tiny"]


def test_a_network_that_cannot_be_measured_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(spec: ServingSpec) -> ServingCost:
        if spec.backbone == "large":
            raise NotImplementedError
        return COSTS[spec]

    monkeypatch.setattr("tuning.search.selection.serving_cost", measure)
    measured_costs = measure_serving_costs(TRIALS, NUM_CLASSES, {}, 60.0)
    assert serving_spec_of(TRIALS[0], NUM_CLASSES) not in measured_costs
    assert len(measured_costs) == 3


def test_the_gate_has_the_limits_of_the_search() -> None:
    gate = recipe(max_latency_ms="12.5", max_mb="20", min_gain="0.02").gate
    assert (gate.max_latency_ms, gate.max_mb, gate.min_gain) == (12.5, 20.0, 0.02)
    assert recipe().gate.max_mb is None
