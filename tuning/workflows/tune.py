"""The tune workflow: from a recipe to a promoted version."""

from __future__ import annotations

from contextlib import closing

from data.audit.report import audit
from tuning.common.event_bus import emit
from tuning.common.events import AuditCompleted
from tuning.common.signals import handle_signals
from tuning.recipe.schema import Recipe
from tuning.registry.build_candidate import resolve_data_path
from tuning.search.ray_runtime import RayRuntime
from tuning.tracking.connection import pop_run_id_from_env
from tuning.tracking.parent_run import ParentRun, parent_run_lifecycle
from tuning.workflows.preflight import prepare_context
from tuning.workflows.search_session import SearchSession


def run_search(recipe: Recipe) -> int:
    """Search, package the best trial's model and promote it; return the exit status.

    Raises:
        UserError: with all problems, before any trial starts.
    """
    given_run = pop_run_id_from_env()
    with handle_signals() as signals, closing(RayRuntime(recipe)) as ray:
        context = prepare_context(recipe, given_run, ray.start_async)
        data_audit = audit(context.dataset)
        emit(AuditCompleted(data_audit))
        parent = ParentRun.open(context.client, given_run, recipe.name or context.dataset.name)
        with parent_run_lifecycle(parent, signals):
            parent.log_audit(data_audit)
            recipe = context.resolve_auto(recipe).model_copy(update={"data": resolve_data_path(recipe.data)})
            return SearchSession(recipe, context, parent, signals, ray).run()
