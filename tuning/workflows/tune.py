"""The tune workflow: from a recipe to a promoted version."""

from __future__ import annotations

from contextlib import closing

from data.audit.report import audit
from tuning.common.events import EventBus
from tuning.common.signals import handle_signals
from tuning.recipe.schema import Recipe
from tuning.registry.build_candidate import resolve_data_path
from tuning.search.ray_runtime import RayRuntime
from tuning.tracking.parent_run import ParentRun, parent_run_lifecycle
from tuning.workflows.finalize import finalize
from tuning.workflows.preflight import Problems, connect_tracking, load_data, prepare_inputs
from tuning.workflows.search_session import Search, SearchSession, announce


def run_search(recipe: Recipe, given_run: str | None, bus: EventBus) -> int:
    """Search, package the best trial's model and promote it; return the exit status.

    The parent run is ``given_run``, which ``mlflow run`` created for this command, or a new one.

    Raises:
        UserError: with all problems, before any trial starts.
    """
    with handle_signals(bus.warning) as signals, closing(RayRuntime(recipe)) as ray:
        problems = Problems()
        bus.stage("checking the networks")
        with problems.collect():
            dataset = load_data(recipe, bus.progress)
            bus.stage("preparing the networks")
            ray.start_async()  # in the background, while the networks are validated and the server is contacted
            inputs = prepare_inputs(recipe, dataset)
        bus.stage("connecting to MLflow")
        with problems.collect():
            client = connect_tracking(recipe, given_run)
        problems.raise_any()
        parent = ParentRun.open(client, given_run, recipe.name or dataset.name)
        with parent_run_lifecycle(parent, signals):
            recipe = inputs.resolve_auto(recipe).model_copy(update={"data": resolve_data_path(recipe.data)})
            search = Search(recipe, inputs, parent, signals, bus)
            data_audit = audit(dataset)
            announce(search, "tune", data_audit)
            parent.log_audit(data_audit)
            return finalize(search, SearchSession(search, ray).run())
