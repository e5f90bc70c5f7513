"""The main command: from a folder of pictures to a champion in the model registry."""

from __future__ import annotations

from collections.abc import Sequence

from tuning.recipe import Recipe
from tuning.recipes import load_recipe

OPTIONS = Recipe
EXAMPLE = "python -m tuning tune --data photos/ --recipe quick"


def run(arguments: Sequence[str]) -> int:
    """Search, and register the best trial's model."""
    recipe = load_recipe(arguments)
    from tuning.views.watching import watched

    def work() -> int:
        from tuning.job import search  # torch, Ray and MLflow take seconds: not before the options are right

        return search(recipe)

    return watched("tune", recipe.quiet, recipe.events, work)
