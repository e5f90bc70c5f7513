"""The tune workflow: from a recipe to a promoted version."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    pass


def run_search(recipe: Recipe) -> int:
    """Search, package the best trial's model, register it and decide about it; return the exit status.

    Raises:
        UserError: before any trial starts, with all that is wrong.
    """
    given_run = pop_run_id_from_env()
    with handle_signals() as interrupts, closing(RayRuntime(recipe)) as ray:
        ground = prepare_context(recipe, given_run, ray.start_async)
        found = audit(ground.dataset)
        emit(AuditCompleted(found))
        parent = ParentRun.open(ground.client, given_run, recipe.name or ground.dataset.name)
        with parent_run_lifecycle(parent, interrupts):
            parent.log_audit(found)
            recipe = ground.resolve_auto(recipe).model_copy(update={"data": resolve_data_path(recipe.data)})
            return SearchSession(recipe, ground, parent, interrupts, ray).run()
