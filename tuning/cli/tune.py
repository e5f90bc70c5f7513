"""The main command: from a folder of images to a champion in the model registry."""

from __future__ import annotations

from collections.abc import Sequence

from tuning.cli.parser import parse_args
from tuning.common.environment import process_started_s
from tuning.common.signals import handle_signals
from tuning.recipe.loader import load_recipe
from tuning.recipe.schema import Recipe

EXAMPLE = "freezeline tune photos/ --minutes 20"
POSITIONALS = ("data",)
Options = Recipe


def parse_options(arguments: Sequence[str]) -> Recipe:
    """Return the recipe: its file, overridden by the other options."""
    return load_recipe(*parse_args(Recipe, arguments, POSITIONALS))


def run(recipe: Recipe, mlflow_run_id: str | None) -> int:
    """Run a search, and register the model of the best trial."""
    from tuning.ui.session import open_event_bus

    with open_event_bus("tune", recipe.quiet, recipe.events) as bus, handle_signals(bus.warning) as signals:
        from tuning.workflows.context import Context
        from tuning.workflows.tune import run_search, show_plan  # imports torch, Ray and MLflow, which takes seconds

        context = Context(bus, signals, process_started_s(), mlflow_run_id)
        return bus.end((show_plan if recipe.dry_run else run_search)(recipe, context))
