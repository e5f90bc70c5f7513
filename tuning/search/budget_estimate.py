"""What a budget will buy, said before it is spent: from the measured time of a training step to a number of trials."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import NamedTuple

from models.profiling.step_time import BATCH_SIZE
from tuning.recipe.schema import Recipe
from tuning.search.time_budget import finalize_reserve_s

VALIDATION_COST_RATIO = (
    1 / 3
)  # of a training step's time: what validation costs for a picture (one pass of a step's three)


class BudgetEstimate(NamedTuple):
    """What is expected of a search's fine-tunes, on its first network and image size.

    Attributes:
        trial_s: seconds of a trial that is not stopped early, by the frozen share of the blocks.
        trials: how many of a middling share the minutes buy, side by side; None without minutes.
        minutes: how long the trials take that were asked for; None where their number is open.
    """

    trial_s: Mapping[float, float]
    trials: int | None
    minutes: float | None


def estimate_budget(
    recipe: Recipe, step_s: Mapping[float, float], num_train: int, num_val: int, max_concurrent: int
) -> BudgetEstimate:
    """Return what a recipe's budget buys.

    Args:
        recipe: with the budget.
        step_s: seconds of a step of ``PICTURES`` pictures by the frozen share, as ``models.profiling.step_time`` measures.
        train: training pictures; each is seen once in an epoch.
        val: validation pictures.
        at_once: trials side by side; each has a core.
    """
    pictures = recipe.max_epochs * (num_train + VALIDATION_COST_RATIO * num_val)
    trial_s = {fraction: pictures / BATCH_SIZE * seconds for fraction, seconds in step_s.items()}
    mean_s = statistics.fmean(trial_s.values())
    left_s = None if recipe.budget_s is None else recipe.budget_s - finalize_reserve_s(recipe.budget_s)
    most = recipe.max_trials
    return BudgetEstimate(
        trial_s,
        trials=None if left_s is None else max(1, int(left_s * max_concurrent / mean_s)),
        minutes=None if most is None else most * mean_s / max_concurrent / 60,
    )
