"""Estimating how many trials a time budget allows, from the measured time of a training step."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import NamedTuple

from models.profiling.step_time import BATCH_SIZE
from tuning.recipe.schema import Recipe
from tuning.search.time_budget import finalize_reserve_s

# Validation time per image relative to training time: a forward pass, against a forward and a backward pass that takes
# about twice as long.
VALIDATION_COST_RATIO = 1 / 3


class BudgetEstimate(NamedTuple):
    """Expected cost of fine-tuning trials with the first backbone and image size.

    Attributes:
        trial_s: seconds of a trial that is not pruned, by freeze fraction.
        trials: number of trials that fit into the time budget at the mean freeze fraction; None without a time budget.
        minutes: duration of the requested trials; None if their number is not limited.
    """

    trial_s: Mapping[float, float]
    trials: int | None
    minutes: float | None


def estimate_budget(
    recipe: Recipe, step_s: Mapping[float, float], num_train: int, num_val: int, max_concurrent: int
) -> BudgetEstimate:
    """Return the number of trials, or their duration, for a recipe's budget.

    Args:
        recipe: the recipe with the budget.
        step_s: seconds of a training step of ``BATCH_SIZE`` images by freeze fraction, as measured by
            ``models.profiling.step_time``.
        num_train: number of training images; each is used once per epoch.
        num_val: number of validation images.
        max_concurrent: number of concurrent trials, with one core each.
    """
    num_images = recipe.max_epochs * (num_train + VALIDATION_COST_RATIO * num_val)
    trial_s = {fraction: num_images / BATCH_SIZE * seconds for fraction, seconds in step_s.items()}
    mean_s = statistics.fmean(trial_s.values())
    available_s = None if recipe.budget_s is None else recipe.budget_s - finalize_reserve_s(recipe.budget_s)
    max_trials = recipe.max_trials
    return BudgetEstimate(
        trial_s,
        trials=None if available_s is None else max(1, int(available_s * max_concurrent / mean_s)),
        minutes=None if max_trials is None else max_trials * mean_s / max_concurrent / 60,
    )
