"""The main command: from a folder of pictures to a champion in the model registry."""

from __future__ import annotations

from collections.abc import Sequence

from tuning.options import parse
from tuning.recipe import Recipe

OPTIONS = Recipe
EXAMPLE = "python -m tuning tune --data photos/ --trials 20"


def run(arguments: Sequence[str]) -> int:
    """Search, and register the best trial's model."""
    recipe = parse(Recipe, arguments)
    from tuning.job import search  # torch, Ray and MLflow take seconds: not before the options are right

    return search(recipe)
