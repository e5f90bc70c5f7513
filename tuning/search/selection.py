"""Who can win, and what is worth its cost: pure functions of the trials' results and of what serving them costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from data.errors import SearchError
from data.frozen_model import Value
from models.profiling.serving_cost import ServedForm, ServingCost
from tuning.common.formatting import network_text
from tuning.common.trial_record import TrialResult

Costs = Mapping[ServedForm, ServingCost]
Measure = Literal["latency_ms", "mb"]
OPTIONS: dict[Measure, str] = {"latency_ms": "max_latency_ms", "mb": "max_mb"}
SHOWN: dict[Measure, str] = {"latency_ms": "{:.3g} ms", "mb": "{:.3g} MB"}


class Limits(Value):
    """What the winner may cost at most; None: anything."""

    latency_ms: float | None = None
    mb: float | None = None

    @property
    def given(self) -> dict[Measure, float]:
        """The limits that there are."""
        every: dict[Measure, float | None] = {"latency_ms": self.latency_ms, "mb": self.mb}
        return {measure: most for measure, most in every.items() if most is not None}

    def excess(self, cost: ServingCost) -> float:
        """Return the largest ratio of what something costs to what it may: up to 1 where it fits."""
        return max((getattr(cost, measure) / most for measure, most in self.given.items()), default=0.0)


class Priced(NamedTuple):
    """The best trial of one served form, and what that form costs."""

    result: TrialResult
    cost: ServingCost


def form_of(result: TrialResult, classes: int) -> ServedForm:
    """Return the form in which a trial's model would be served."""
    config = result.config
    return ServedForm.of(config.network, config.preprocessing.image_size, classes)


def choose(results: Sequence[TrialResult], costs: Costs, limits: Limits, classes: int) -> TrialResult | None:
    """Return the best trial that fits the limits; None where no trial has a score.

    Raises:
        SearchError: as ``fitting``.
    """
    return next(iter(fitting(results, costs, limits, classes)), None)


def fitting(results: Sequence[TrialResult], costs: Costs, limits: Limits, classes: int) -> list[TrialResult]:
    """Return the trials that may win, best first; where there are limits, a trial of unknown cost may not.

    Raises:
        SearchError: there are trials with a score, and none fits; the sentence names the nearest.
    """
    scored = ranked(results)
    if not limits.given or not scored:
        return scored
    known = [(result, costs.get(form_of(result, classes))) for result in scored]
    fits = [result for result, cost in known if cost is not None and limits.excess(cost) <= 1]
    if not fits:
        raise SearchError(_none_fits(priced(results, costs, classes), limits))
    return fits


def priced(results: Sequence[TrialResult], costs: Costs, classes: int) -> list[Priced]:
    """Return the best trial of each served form whose cost is known, best first."""
    best: dict[ServedForm, TrialResult] = {}
    for result in ranked(results):
        best.setdefault(form_of(result, classes), result)
    return [Priced(result, costs[form]) for form, result in best.items() if form in costs]


def front(every: Sequence[Priced], measure: Measure) -> list[Priced]:
    """Return the Pareto front, best first: each is cheaper than all that are better, and better than all cheaper ones.

    Of those that agree in score and cost the first stands for all.
    """
    found: list[Priced] = []
    for one in sorted(every, key=lambda one: (-(one.result.score or 0.0), getattr(one.cost, measure))):
        if not found or getattr(one.cost, measure) < getattr(found[-1].cost, measure):
            found.append(one)
    return found


def _none_fits(every: Sequence[Priced], limits: Limits) -> str:
    asked = " and ".join(f"{OPTIONS[measure]}={most:g}" for measure, most in limits.given.items())
    if not every:
        return f"the winner must keep {asked}, but no network of this search could be measured; leave the limit out"
    near = min(every, key=lambda one: limits.excess(one.cost))
    costs = ", ".join(form.format(getattr(near.cost, measure)) for measure, form in SHOWN.items())
    return (
        f"the winner must keep {asked}, and no trial's network does: the nearest is {network_text(near.result)} "
        f"({costs}, validation {near.result.score:.4f} by trial {near.result.number}); raise the limit, or search "
        "smaller networks with backbone, image_size or truncate"
    )


def ranked(results: Sequence[TrialResult]) -> list[TrialResult]:
    """Return the trials that may be the best, best first."""
    return sorted((result for result in results if result.counts), key=lambda result: result.rank, reverse=True)


def default_of(results: Iterable[TrialResult]) -> TrialResult | None:
    """Return the recipe's default, the first of its kind; None where it was not asked for."""
    return next((result for result in results if result.origin == "default"), None)


def noise(one: float, other: float, pictures: int) -> float:
    """Return the standard error of the difference of two scores: of n pictures each has the variance p (1 - p) / n."""
    return math.sqrt((one * (1 - one) + other * (1 - other)) / pictures)


# Who is ahead: the fine-tunes by more than the noise of the validation pictures, the probes at all, or neither.
Lead = Literal["fine-tuning", "neither", "probes"]


def leads(one: float, other: float, pictures: int) -> bool:
    """Return whether a score is ahead of another by more than twice the noise: about what a 95 % interval says."""
    return one - other > 2 * noise(one, other, pictures)


MEASURES: tuple[Measure, ...] = ("latency_ms", "mb")

FRONTS: dict[Measure, str] = {"latency_ms": "speed", "mb": "size"}


def efficient(every: Sequence[Priced]) -> list[Priced]:
    """Return what is on the front by latency or by size, best first."""
    on = {one.result.number for measure in MEASURES for one in front(every, measure)}
    return [one for one in every if one.result.number in on]


def fronts(one: Priced, every: Sequence[Priced]) -> str:
    """Return in what no network that is at least as good beats this one; empty if it is on no front."""
    return ", ".join(FRONTS[measure] for measure in MEASURES if one in front(every, measure))
