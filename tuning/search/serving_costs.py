"""Measuring the serving cost of a search's networks within a time limit, best trials first."""

from __future__ import annotations

import time
from collections.abc import Sequence

from models.profiling.serving_cost import ServingCost, ServingSpec, serving_cost
from tuning.common.trial_record import TrialRecord
from tuning.search.selection import Limits, ranked, serving_spec_of


def measure_serving_costs(
    trials: Sequence[TrialRecord], num_classes: int, limits: Limits, time_limit_s: float
) -> dict[ServingSpec, ServingCost]:
    """Return the serving costs of the trials' networks, measured in the order of their best scores.

    Measuring stops after ``time_limit_s``; if limits are set, it continues until one network is within them. Because
    of the order, the first network within the limits is the best of all that are. A network that cannot be measured
    is skipped.
    """
    start_s, is_any_allowed = time.monotonic(), False
    costs: dict[ServingSpec, ServingCost] = {}
    for spec in dict.fromkeys(serving_spec_of(trial, num_classes) for trial in ranked(trials)):
        if time.monotonic() - start_s > time_limit_s and (is_any_allowed or not limits.active):
            break
        try:
            costs[spec] = serving_cost(spec)
        except Exception:  # noqa: S112  # a backbone that cannot be exported only lacks a cost
            continue
        is_any_allowed = is_any_allowed or limits.violation_ratio(costs[spec]) <= 1
    return costs
