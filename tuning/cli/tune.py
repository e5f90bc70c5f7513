"""The main command: from a folder of images to a champion in the model registry."""

from __future__ import annotations

from collections.abc import Sequence

from tuning.cli.parser import parse_args
from tuning.recipe.loader import load_recipe
from tuning.recipe.schema import Recipe

OPTIONS = Recipe
EXAMPLE = "python -m tuning tune --data photos/ --recipe quick"


def run(arguments: Sequence[str], mlflow_run_id: str | None) -> int:
    """Run a search, and register the model of the best trial."""
    recipe = load_recipe(*parse_args(Recipe, arguments))
    from tuning.ui.session import open_event_bus

    with open_event_bus("tune", recipe.quiet, recipe.events) as bus:
        from tuning.workflows.tune import run_search  # imports torch, Ray and MLflow, which takes seconds

        return bus.end(run_search(recipe, mlflow_run_id, bus))
