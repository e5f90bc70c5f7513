"""The tune workflow: from a recipe to a promoted version.

What imports torch is imported in functions, after Ray has started: that takes seconds, in which the other cores would
wait.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial

from data.audit.report import Audit, audit
from data.machine import available_cores
from tuning.common.events import AuditCompleted
from tuning.common.exit_codes import FINISHED
from tuning.recipe.loader import recipe_text
from tuning.recipe.schema import Recipe
from tuning.search.ray_runtime import RayRuntime, concurrency, num_local_gpus
from tuning.tracking.connection import check_available
from tuning.workflows.context import Context
from tuning.workflows.preflight import Problems, connect_tracking, load_data, prepare_inputs, trains_on_gpu
from tuning.workflows.start_from import load_start


@dataclass(frozen=True)
class Plan:
    """What a search would do: the audit of its data, its trials as text, and its recipe with resolved values."""

    audit: Audit
    trials: str
    recipe: Recipe

    def lines(self) -> list[str]:
        """Return the plan and the resolved recipe as text."""
        return [f"plan: {self.trials}", "resolved recipe:", recipe_text(self.recipe)]

    def __str__(self) -> str:
        return "\n".join([*self.audit.lines(), *self.lines()])

    __repr__ = __str__


def show_plan(recipe: Recipe, context: Context) -> int:
    """Show the plan of a search without starting anything; return the exit status.

    Raises:
        UserError: with all problems.
    """
    plan = make_plan(recipe, context)
    context.bus.emit(AuditCompleted(plan.audit, tuple(recipe.command_arguments())))
    context.bus.show(*plan.lines())
    return FINISHED


def make_plan(recipe: Recipe, context: Context) -> Plan:
    """Validate a recipe, and return the plan of its search.

    Raises:
        UserError: with all problems.
    """
    from tuning.search.strategy import SearchStrategy
    from tuning.ui import summary

    start = load_start(recipe)
    recipe = start.recipe
    on_gpu = cache(partial(trains_on_gpu, recipe, num_local_gpus))
    dataset = load_data(recipe, context.bus.progress, on_gpu, test_hashes=start.test_hashes)
    start.check(dataset)
    inputs = prepare_inputs(recipe, dataset, on_gpu())
    if recipe.tracking == "server":
        check_available()
    recipe = inputs.resolve_auto(recipe)
    strategy = SearchStrategy(recipe, inputs.search_space(recipe), len(dataset.split("val")))
    trials = summary.plan_line(recipe, (), len(strategy.probes_left(())), num_dropped=0)
    max_concurrent = concurrency(recipe, {"CPU": available_cores()})
    return Plan(audit(dataset), f"{trials}, {max_concurrent} in parallel", recipe)


def run_search(recipe: Recipe, context: Context) -> int:
    """Search, package the best trial's model and promote it; return the exit status.

    The parent run is the one that ``mlflow run`` created for this command, or a new one.

    Raises:
        UserError: with all problems, before any trial starts.
    """
    if recipe.start_from:
        context.bus.stage(f"reading the configuration of {recipe.start_from}")
    start = load_start(recipe)
    recipe = start.recipe
    with closing(RayRuntime(recipe)) as ray:
        on_gpu = cache(partial(trains_on_gpu, recipe, ray.num_gpus))
        problems = Problems()
        context.bus.stage("checking the images")
        with problems.collect():
            dataset = load_data(recipe, context.bus.progress, on_gpu, ray, start.test_hashes)
            start.check(dataset)
            context.bus.stage("preparing the networks")
            inputs = prepare_inputs(recipe, dataset, on_gpu())
        from tuning.registry.build_candidate import with_absolute_paths
        from tuning.tracking.parent_run import ParentRun, parent_run_lifecycle
        from tuning.workflows.finalize import finalize
        from tuning.workflows.search import Search, announce
        from tuning.workflows.search_session import SearchSession

        context.bus.stage("connecting to MLflow")
        client = connect_tracking(recipe, context.mlflow_run_id, problems)
        name = recipe.name or dataset.name
        parent = ParentRun.open(client, context.mlflow_run_id, name, context.started_s)
        with parent_run_lifecycle(parent, context.signals):
            recipe = with_absolute_paths(inputs.resolve_auto(recipe))
            search = Search(recipe, inputs, parent, context)
            data_audit = audit(dataset)
            announce(search, "tune", data_audit)
            parent.log_audit(data_audit)
            return finalize(search, SearchSession(search, ray).run())
