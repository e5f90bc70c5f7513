"""Who can win, and what is worth its cost: pure functions of the trials' results and of what serving them costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from data.errors import SearchError
from data.frozen_model import FrozenModel
from models.profiling.serving_cost import ServingCost, ServingSpec
from tuning.common.formatting import describe_network
from tuning.common.trial_record import TrialRecord

Costs = Mapping[ServingSpec, ServingCost]
CostMetric = Literal["latency_ms", "mb"]
LIMIT_OPTIONS: dict[CostMetric, str] = {"latency_ms": "max_latency_ms", "mb": "max_mb"}
COST_FORMATS: dict[CostMetric, str] = {"latency_ms": "{:.3g} ms", "mb": "{:.3g} MB"}


class Limits(FrozenModel):
    """What the winner may cost at most; None: anything."""

    latency_ms: float | None = None
    mb: float | None = None

    @property
    def active(self) -> dict[CostMetric, float]:
        """The limits that there are."""
        every: dict[CostMetric, float | None] = {"latency_ms": self.latency_ms, "mb": self.mb}
        return {measure: most for measure, most in every.items() if most is not None}

    def violation_ratio(self, cost: ServingCost) -> float:
        """Return the largest ratio of what something costs to what it may: up to 1 where it fits."""
        return max((getattr(cost, measure) / most for measure, most in self.active.items()), default=0.0)


class CostedTrial(NamedTuple):
    """The best trial of one served form, and what that form costs."""

    trial: TrialRecord
    cost: ServingCost


def serving_spec_of(trial: TrialRecord, num_classes: int) -> ServingSpec:
    """Return the form in which a trial's model would be served."""
    config = trial.config
    return ServingSpec.from_network(config.network, config.preprocessing.image_size, num_classes)


def choose(results: Sequence[TrialRecord], costs: Costs, limits: Limits, classes: int) -> TrialRecord | None:
    """Return the best trial that fits the limits; None where no trial has a score.

    Raises:
        SearchError: as ``within_limits``.
    """
    return next(iter(within_limits(results, costs, limits, classes)), None)


def within_limits(trials: Sequence[TrialRecord], costs: Costs, limits: Limits, num_classes: int) -> list[TrialRecord]:
    """Return the trials that may win, best first; where there are limits, a trial of unknown cost may not.

    Raises:
        SearchError: there are trials with a score, and none fits; the sentence names the nearest.
    """
    scored = ranked(trials)
    if not limits.active or not scored:
        return scored
    known = [(result, costs.get(serving_spec_of(result, num_classes))) for result in scored]
    fits = [result for result, cost in known if cost is not None and limits.violation_ratio(cost) <= 1]
    if not fits:
        raise SearchError(no_fit_message(best_per_serving_spec(trials, costs, num_classes), limits))
    return fits


def best_per_serving_spec(trials: Sequence[TrialRecord], costs: Costs, num_classes: int) -> list[CostedTrial]:
    """Return the best trial of each served form whose cost is known, best first."""
    best: dict[ServingSpec, TrialRecord] = {}
    for result in ranked(trials):
        best.setdefault(serving_spec_of(result, num_classes), result)
    return [CostedTrial(result, costs[form]) for form, result in best.items() if form in costs]


def pareto_front(costed_trials: Sequence[CostedTrial], metric: CostMetric) -> list[CostedTrial]:
    """Return the Pareto front, best first: each is cheaper than all that are better, and better than all cheaper ones.

    Of those that agree in score and cost the first stands for all.
    """
    found: list[CostedTrial] = []
    for one in sorted(costed_trials, key=lambda one: (-(one.trial.score or 0.0), getattr(one.cost, metric))):
        if not found or getattr(one.cost, metric) < getattr(found[-1].cost, metric):
            found.append(one)
    return found


def no_fit_message(every: Sequence[CostedTrial], limits: Limits) -> str:
    asked = " and ".join(f"{LIMIT_OPTIONS[measure]}={most:g}" for measure, most in limits.active.items())
    if not every:
        return f"the winner must keep {asked}, but no network of this search could be measured; leave the limit out"
    near = min(every, key=lambda one: limits.violation_ratio(one.cost))
    costs = ", ".join(form.format(getattr(near.cost, measure)) for measure, form in COST_FORMATS.items())
    return (
        f"the winner must keep {asked}, and no trial's network does: the nearest is {describe_network(near.trial)} "
        f"({costs}, validation {near.trial.score:.4f} by trial {near.trial.number}); raise the limit, or search "
        "smaller networks with backbone, image_size or truncate"
    )


def ranked(results: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials that may be the best, best first."""
    return sorted(
        (result for result in results if result.is_eligible), key=lambda result: result.sort_key, reverse=True
    )


def default_trial(results: Iterable[TrialRecord]) -> TrialRecord | None:
    """Return the recipe's default, the first of its kind; None where it was not asked for."""
    return next((result for result in results if result.origin == "default"), None)


def standard_error(one: float, other: float, num_images: int) -> float:
    """Return the standard error of the difference of two scores: of n pictures each has the variance p (1 - p) / n."""
    return math.sqrt((one * (1 - one) + other * (1 - other)) / num_images)


# Who is ahead: the fine-tunes by more than the noise of the validation pictures, the probes at all, or neither.
LeadingPhase = Literal["fine-tuning", "neither", "probes"]


def is_significantly_better(one: float, other: float, num_images: int) -> bool:
    """Return whether a score is ahead of another by more than twice the noise: about what a 95 % interval says."""
    return one - other > 2 * standard_error(one, other, num_images)


COST_METRICS: tuple[CostMetric, ...] = ("latency_ms", "mb")

PARETO_LABELS: dict[CostMetric, str] = {"latency_ms": "speed", "mb": "size"}


def on_a_pareto_front(costed_trials: Sequence[CostedTrial]) -> list[CostedTrial]:
    """Return what is on the front by latency or by size, best first."""
    on = {one.trial.number for measure in COST_METRICS for one in pareto_front(costed_trials, measure)}
    return [one for one in costed_trials if one.trial.number in on]


def pareto_labels(costed: CostedTrial, costed_trials: Sequence[CostedTrial]) -> str:
    """Return in what no network that is at least as good beats this one; empty if it is on no front."""
    return ", ".join(
        PARETO_LABELS[measure] for measure in COST_METRICS if costed in pareto_front(costed_trials, measure)
    )
