"""The main command: from a folder of pictures to a champion in the model registry."""

from __future__ import annotations

from collections.abc import Sequence

from tuning.recipe.loader import load_recipe
from tuning.recipe.schema import Recipe

OPTIONS = Recipe
EXAMPLE = "python -m tuning tune --data photos/ --recipe quick"


def run(arguments: Sequence[str]) -> int:
    """Search, and register the best trial's model."""
    recipe = load_recipe(arguments)
    from tuning.ui.session import run_with_ui

    def work() -> int:
        from tuning.workflows.tune import (
            run_search,  # torch, Ray and MLflow take seconds: not before the options are right
        )

        return run_search(recipe)

    return run_with_ui("tune", recipe.quiet, recipe.events, work)
