"""Measuring what a search's networks cost to serve: as many as there is time for, the most promising first."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from models.profiling.serving_cost import ServingCost, ServingSpec, serving_cost
from tuning.common.trial_record import TrialRecord
from tuning.search.selection import Limits, ranked, serving_spec_of

MeasureCost = Callable[[ServingSpec], ServingCost]


def measure_serving_costs(
    trials: Sequence[TrialRecord],
    num_classes: int,
    limits: Limits,
    time_limit_s: float,
    measure: MeasureCost = serving_cost,
) -> dict[ServingSpec, ServingCost]:
    """Return what the networks of the trials cost, by the score of the best trial of each.

    After ``enough_s`` no further one is measured, but that one fits the limits is always looked for to the end: the
    first that fits in this order is the best of all that do. A network that can't be measured is left out.
    """
    began, fits = time.monotonic(), False
    costs: dict[ServingSpec, ServingCost] = {}
    for form in dict.fromkeys(serving_spec_of(result, num_classes) for result in ranked(trials)):
        if time.monotonic() - began > time_limit_s and (fits or not limits.active):
            break
        try:
            costs[form] = measure(form)
        except Exception:  # noqa: S112  a network of a library's that can't be exported costs a row, not the search
            continue
        fits = fits or limits.violation_ratio(costs[form]) <= 1
    return costs
