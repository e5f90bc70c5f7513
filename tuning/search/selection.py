"""Selecting the winner under latency and size limits; Pareto front; measuring the serving costs they need."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from data.errors import SearchError
from models.profiling.serving_cost import ServingCost, ServingSpec, is_measured, serving_cost
from tuning.common.formatting import describe_network
from tuning.common.names import OOF_LOSS_METRIC
from tuning.common.trial_record import TrialRecord

Costs = Mapping[ServingSpec, ServingCost]
CostMetric = Literal["latency_ms", "mb"]
Limits = Mapping[CostMetric, float]  # upper limits of the winner's serving cost
COST_METRICS: tuple[CostMetric, ...] = ("latency_ms", "mb")
LIMIT_OPTIONS: dict[CostMetric, str] = {"latency_ms": "max_latency_ms", "mb": "max_mb"}
COST_FORMATS: dict[CostMetric, str] = {"latency_ms": "{:.3g} ms", "mb": "{:.3g} MB"}
PARETO_LABELS: dict[CostMetric, str] = {"latency_ms": "latency", "mb": "size"}


class CostedTrial(NamedTuple):
    """The best trial of a serving spec, and its serving cost."""

    trial: TrialRecord
    cost: ServingCost


def violation_ratio(cost: ServingCost, limits: Limits) -> float:
    """Return the largest ratio of a cost to its limit; at most 1 if all limits are met."""
    return max((getattr(cost, metric) / limit for metric, limit in limits.items()), default=0.0)


def ranked(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the eligible trials, best first."""
    return sorted((trial for trial in trials if trial.is_eligible), key=lambda trial: trial.sort_key, reverse=True)


def default_trial(trials: Iterable[TrialRecord]) -> TrialRecord | None:
    """Return the trial of the recipe's defaults, the first of its origin; None if it has not started."""
    return next((trial for trial in trials if trial.origin == "default"), None)


def standard_error(score: float, other_score: float, num_images: int) -> float:
    """Return the standard error of the difference of two scores, with variance p (1 - p) / n for each score."""
    return math.sqrt((score * (1 - score) + other_score * (1 - other_score)) / num_images)


def is_significantly_better(score: float, other_score: float, num_images: int) -> bool:
    """Return whether a score exceeds another by more than two standard errors (about a 95 % confidence interval)."""
    return score - other_score > 2 * standard_error(score, other_score, num_images)


def serving_spec_of(trial: TrialRecord, num_classes: int) -> ServingSpec:
    """Return the serving spec of a trial's model."""
    config = trial.config
    return ServingSpec.from_network(config.network, config.preprocessing.image_size, num_classes)


def measure_serving_costs(
    trials: Sequence[TrialRecord], num_classes: int, limits: Limits, time_limit_s: float
) -> dict[ServingSpec, ServingCost]:
    """Return the serving costs of the trials' networks, from the cache or measured in the order of their lowest losses.

    None is measured after ``time_limit_s``; if limits are set, measuring continues until one network is within them.
    Because of the order, the first network within the limits is likely the best of all that are. A network that cannot
    be measured is skipped.
    """
    start_s, is_any_allowed = time.monotonic(), False
    costs: dict[ServingSpec, ServingCost] = {}
    for spec in specs_by_loss(trials, num_classes):
        is_out_of_time = time.monotonic() - start_s > time_limit_s and (is_any_allowed or not limits)
        if is_out_of_time and not is_measured(spec):
            continue
        try:
            costs[spec] = serving_cost(spec)
        except Exception:  # noqa: S112  # a backbone that cannot be exported only lacks a cost
            continue
        is_any_allowed = is_any_allowed or violation_ratio(costs[spec], limits) <= 1
    return costs


def specs_by_loss(trials: Sequence[TrialRecord], num_classes: int) -> list[ServingSpec]:
    """Return the serving specs of the eligible trials, by log loss over folds if there are any, else on validation."""

    def loss(trial: TrialRecord) -> float:
        return trial.metrics.get(OOF_LOSS_METRIC, trial.metrics.get("val_loss", math.inf))

    by_loss = sorted((trial for trial in trials if trial.is_eligible), key=loss)
    return list(dict.fromkeys(serving_spec_of(trial, num_classes) for trial in by_loss))


def within_limits(trials: Sequence[TrialRecord], costs: Costs, limits: Limits, num_classes: int) -> list[TrialRecord]:
    """Return the trials that may win, best first; if a limit is set, trials of unknown cost are excluded.

    Raises:
        SearchError: some trials have a score, but none is within the limits; the message names the closest.
    """
    candidates = ranked(trials)
    if not limits or not candidates:
        return candidates
    with_costs = [(trial, costs.get(serving_spec_of(trial, num_classes))) for trial in candidates]
    allowed = [trial for trial, cost in with_costs if cost is not None and violation_ratio(cost, limits) <= 1]
    if not allowed:
        raise SearchError(_limits_error(best_per_serving_spec(trials, costs, num_classes), limits))
    return allowed


def keep_limits(costs: Sequence[ServingCost | None], limits: Limits) -> bool:
    """Return whether the members of an ensemble together are within the limits; if one is set, all costs are needed."""
    known = [cost for cost in costs if cost is not None]
    totals = {metric: sum(getattr(cost, metric) for cost in known) for metric in limits}
    return not limits or (len(known) == len(costs) and all(totals[metric] <= limits[metric] for metric in limits))


def best_per_serving_spec(trials: Sequence[TrialRecord], costs: Costs, num_classes: int) -> list[CostedTrial]:
    """Return the best trial of each serving spec with a known cost, best first."""
    best: dict[ServingSpec, TrialRecord] = {}
    for trial in ranked(trials):
        best.setdefault(serving_spec_of(trial, num_classes), trial)
    return [CostedTrial(trial, costs[spec]) for spec, trial in best.items() if spec in costs]


MIN_PARETO_NETWORKS = 3  # a front of fewer networks says nothing about the others


def pareto_front(costed_trials: Sequence[CostedTrial], metric: CostMetric) -> list[CostedTrial]:
    """Return the Pareto front of score and one cost metric, best score first.

    Of trials with equal score and cost only the first is included.
    """
    front: list[CostedTrial] = []
    by_score = sorted(costed_trials, key=lambda costed: (-(costed.trial.score or 0.0), getattr(costed.cost, metric)))
    for costed in by_score:
        if not front or getattr(costed.cost, metric) < getattr(front[-1].cost, metric):
            front.append(costed)
    return front


def on_a_pareto_front(costed_trials: Sequence[CostedTrial]) -> list[CostedTrial]:
    """Return the trials on the Pareto front of latency or of size, in the given order."""
    numbers = {costed.trial.number for metric in COST_METRICS for costed in pareto_front(costed_trials, metric)}
    return [costed for costed in costed_trials if costed.trial.number in numbers]


def pareto_labels(costed: CostedTrial, costed_trials: Sequence[CostedTrial]) -> str:
    """Return the labels of the Pareto fronts that contain this trial; empty if there are none."""
    metrics = (metric for metric in COST_METRICS if costed in pareto_front(costed_trials, metric))
    return ", ".join(PARETO_LABELS[metric] for metric in metrics)


def _limits_error(costed_trials: Sequence[CostedTrial], limits: Limits) -> str:
    rule = " and ".join(f"{LIMIT_OPTIONS[metric]}={limit:g}" for metric, limit in limits.items())
    if not costed_trials:
        return f"the winner must keep {rule}, but no network of this search could be measured; remove the limit"
    closest = min(costed_trials, key=lambda costed: violation_ratio(costed.cost, limits))
    costs = ", ".join(text.format(getattr(closest.cost, metric)) for metric, text in COST_FORMATS.items())
    return (
        f"the winner must keep {rule}, but no trial's network does: the closest is {describe_network(closest.trial)} "
        f"({costs}, validation {closest.trial.score:.4f} in trial {closest.trial.number}); raise the limit, or search "
        "smaller networks with backbone, image_size or truncate"
    )
