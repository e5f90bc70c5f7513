"""The winner of a search, or the likely one while trials still run, and the baseline that it must beat."""

from __future__ import annotations

import math
from collections.abc import Sequence

from data.loading.pixel_cache import pixel_cache
from models.evaluation.pixel_baseline import pixel_baseline_accuracy
from tuning.common.trial_record import TrialRecord
from tuning.recipe.schema import Recipe
from tuning.registry.member_predictions import TrainedMember
from tuning.search.evidence import Evidence
from tuning.search.search_result import SearchResult
from tuning.search.selection import CostMetric, measure_serving_costs
from tuning.workflows.search import Search

# For measuring serving costs when the recipe has no serving limits: at most 8 s, and a small part of a short budget.
COST_MEASUREMENT_BUDGET_S, COST_MEASUREMENT_SHARE = 8.0, 0.025


def select_winner(search: Search, trials: Sequence[TrialRecord], measured_s: float = 0.0) -> SearchResult:
    """Measure the serving costs of the trials' networks, and select the winner within the limits.

    Earlier measurements have taken ``measured_s`` of the time for them.

    Raises:
        SearchError: no trial's network keeps the limits.
    """
    recipe, dataset = search.recipe, search.dataset
    limits: dict[CostMetric, float] = {}
    if recipe.max_latency_ms is not None:
        limits["latency_ms"] = recipe.max_latency_ms
    if recipe.max_mb is not None:
        limits["mb"] = recipe.max_mb
    costs = measure_serving_costs(trials, len(dataset.classes), limits, cost_measurement_s(recipe) - measured_s)
    return SearchResult.select(trials, costs, limits, recipe, Evidence.load(search.paths, dataset, trials))


def cost_measurement_s(recipe: Recipe) -> float:
    """Return the seconds for measuring serving costs; with limits, measuring may take longer."""
    budget_s = math.inf if recipe.budget_s is None else COST_MEASUREMENT_SHARE * recipe.budget_s
    return min(COST_MEASUREMENT_BUDGET_S, budget_s)


def trained_members(search: Search, result: SearchResult) -> list[TrainedMember]:
    """Return the networks of the winner with their weights."""
    return [
        TrainedMember(trial.config, search.paths.final_weights(trial.trial_uid, trial.best_epoch), weight)
        for trial, weight in result.members
    ]


def pixel_baseline(search: Search) -> float:
    """Return the test accuracy of logistic regression on raw pixels."""
    cache = pixel_cache(search.dataset, next(iter(search.inputs.preprocessings.values())))
    return pixel_baseline_accuracy(cache.split("train"), cache.split("test"))
