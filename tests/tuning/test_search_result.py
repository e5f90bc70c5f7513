"""The result of a search: the selected winner, and the lines and metrics of its selection."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.errors import SearchError
from models.profiling.serving_cost import ServingCost
from tests.tuning.factories import dataset, search_result, trial_record
from tests.tuning.report_factory import report_trial
from tuning.common.trial_record import TrialRecord
from tuning.recipe.schema import Recipe
from tuning.search.evidence import Evidence
from tuning.search.reruns import Improvement, RerunTrial
from tuning.search.search_result import SearchResult
from tuning.search.selection import Costs, Limits, serving_spec_of
from tuning.ui.summary import rerun_lines, winner_metrics

LARGE, SMALL, FAILED = report_trial(0, 0.7, image_size=64), report_trial(1, 0.6), report_trial(2, None, "failed")


def costs(num_classes: int) -> Costs:
    return {
        serving_spec_of(trial, num_classes): ServingCost(latency_ms=cost, mb=cost)
        for trial, cost in ((LARGE, 9.0), (SMALL, 3.0))
    }


def select(tmp_path: Path, *reruns: TrialRecord, limits: Limits | None = None) -> SearchResult:
    pets = dataset(tmp_path)
    trials = [LARGE, SMALL, FAILED, *reruns]
    rules = Recipe(rerun_top_k=2)
    return SearchResult.select(trials, costs(len(pets.classes)), limits or {}, rules, Evidence(pets, {}))


def rerun_of(trial: TrialRecord, number: int, score: float) -> TrialRecord:
    changes = {"origin": "rerun", "rerun_of": trial.trial_uid}
    return trial_record(number, score).model_copy(update=changes)


def test_the_winner_is_within_the_limits_and_its_cost_is_known(tmp_path: Path) -> None:
    result = select(tmp_path)
    assert (result.winner, result.default, result.improvement, result.reruns) == (LARGE, LARGE, None, ())
    assert result.winner_cost == ServingCost(latency_ms=9, mb=9)
    limited = select(tmp_path, limits={"mb": 5})
    assert limited.winner == SMALL
    assert limited.improvement is not None
    assert [costed.trial for costed in limited.costed_trials] == limited.ranked[:2] == [LARGE, SMALL]
    assert limited.ranked[2] == FAILED
    with pytest.raises(SearchError, match="must keep max_mb=1"):
        select(tmp_path, limits={"mb": 1})


def test_a_trial_that_could_not_be_rerun_is_listed_with_the_reason(tmp_path: Path) -> None:
    result = select(tmp_path, rerun_of(LARGE, 3, 0.4))
    assert result.reruns == (RerunTrial(LARGE, (0.7, 0.4)), RerunTrial(SMALL, (0.6,)))
    assert "  trial 1: 0.6000, not re-run: out of time" in rerun_lines(result)
    assert select(tmp_path).reruns == ()


def test_networks_without_a_known_cost_are_counted(tmp_path: Path) -> None:
    result = select(tmp_path)
    assert (result.num_networks, len(result.costed_trials), result.has_pareto_front) == (2, 2, False)


def test_reruns_and_the_gain_over_the_default_are_shown_and_logged() -> None:
    reruns = (RerunTrial(LARGE, (0.7, 0.5)), RerunTrial(SMALL, (0.6, 0.6)))
    result = search_result([LARGE, SMALL], LARGE, reruns=reruns, improvement=Improvement(0.1, 0.02))
    assert rerun_lines(result) == [
        "Best trials re-run with other seeds:",
        "  trial 0: mean 0.6000, std 0.1414 over 2 seeds (winner)",
        "  trial 1: mean 0.6000, std 0.0000 over 2 seeds",
        "Compared with the default: +0.1000 on validation, significant (standard error 0.0200)",
    ]
    assert winner_metrics(result) == {
        "best_val_balanced_accuracy": 0.7,
        "best_val_loss": pytest.approx(0.3),
        "best_trial": 0,
        "best_epoch": 2,
        "trials": 2,
        "best_mean": pytest.approx(0.6),
        "best_std": pytest.approx(0.1414, abs=1e-4),
        "best_seeds": 2,
        "gain_over_default": 0.1,
        "gain_standard_error": 0.02,
    }
    assert rerun_lines(search_result([LARGE], LARGE)) == []
