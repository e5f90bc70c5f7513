"""The tune workflow: from a recipe to a promoted version."""

from __future__ import annotations

from contextlib import closing

from data.audit.report import audit
from data.parallel import available_cores
from tuning.common.events import AuditCompleted
from tuning.common.exit_codes import FINISHED
from tuning.recipe.loader import recipe_text
from tuning.recipe.schema import Recipe
from tuning.registry.build_candidate import resolve_data_path
from tuning.search.ray_runtime import RayRuntime, concurrency
from tuning.search.strategy import SearchStrategy
from tuning.tracking.connection import check_available
from tuning.tracking.parent_run import ParentRun, parent_run_lifecycle
from tuning.ui import summary
from tuning.workflows.context import Context
from tuning.workflows.finalize import finalize
from tuning.workflows.preflight import Problems, connect_tracking, load_data, prepare_inputs
from tuning.workflows.search_session import Search, SearchSession, announce


def show_plan(recipe: Recipe, context: Context) -> int:
    """Validate a recipe, and show its data, plan and resolved values without starting anything; return the exit status.

    Raises:
        UserError: with all problems.
    """
    dataset = load_data(recipe, context.bus.progress)
    inputs = prepare_inputs(recipe, dataset)
    if recipe.tracking == "server":
        check_available()
    context.bus.emit(AuditCompleted(audit(dataset)))
    recipe = inputs.resolve_auto(recipe)
    strategy = SearchStrategy(recipe, inputs.search_space(recipe), len(dataset.split("val")))
    plan = summary.plan_line(recipe, (), len(strategy.probes_left(())), num_dropped=0)
    max_concurrent = concurrency(recipe, {"CPU": available_cores()})
    context.bus.show(f"plan: {plan}, {max_concurrent} in parallel", "resolved recipe:", recipe_text(recipe))
    return FINISHED


def run_search(recipe: Recipe, context: Context) -> int:
    """Search, package the best trial's model and promote it; return the exit status.

    The parent run is the one that ``mlflow run`` created for this command, or a new one.

    Raises:
        UserError: with all problems, before any trial starts.
    """
    with closing(RayRuntime(recipe)) as ray:
        problems = Problems()
        context.bus.stage("checking the networks")
        with problems.collect():
            dataset = load_data(recipe, context.bus.progress)
            context.bus.stage("preparing the networks")
            ray.start_async()  # in the background, while the networks are validated and the server is contacted
            inputs = prepare_inputs(recipe, dataset)
        context.bus.stage("connecting to MLflow")
        with problems.collect():
            client = connect_tracking(recipe, context.mlflow_run_id)
        problems.raise_any()
        name = recipe.name or dataset.name
        parent = ParentRun.open(client, context.mlflow_run_id, name, context.started_s)
        with parent_run_lifecycle(parent, context.signals):
            recipe = inputs.resolve_auto(recipe).model_copy(update={"data": resolve_data_path(recipe.data)})
            search = Search(recipe, inputs, parent, context)
            data_audit = audit(dataset)
            announce(search, "tune", data_audit)
            parent.log_audit(data_audit)
            return finalize(search, SearchSession(search, ray).run())
