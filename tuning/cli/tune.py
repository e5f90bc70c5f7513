"""The main command: from a folder of images to a champion in the model registry."""

from __future__ import annotations

from collections.abc import Sequence

from tuning.cli.parser import parse_args
from tuning.recipe.loader import load_recipe
from tuning.recipe.schema import Recipe

OPTIONS = Recipe
EXAMPLE = "python -m tuning tune --data photos/ --recipe quick"


def run(arguments: Sequence[str]) -> int:
    """Run a search, and register the model of the best trial."""
    recipe = load_recipe(*parse_args(Recipe, arguments))
    from tuning.ui.session import run_with_ui

    def work() -> int:
        from tuning.workflows.tune import run_search  # imports torch, Ray and MLflow, which takes seconds

        return run_search(recipe)

    return run_with_ui("tune", recipe.quiet, recipe.events, work)
