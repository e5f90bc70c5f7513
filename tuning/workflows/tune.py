"""The tune workflow: from a recipe to a promoted version."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from data.audit.report import audit
from tuning.common.event_bus import tell
from tuning.common.events import Audited
from tuning.common.signals import caught
from tuning.recipe.schema import Recipe
from tuning.registry.build_candidate import absolute
from tuning.search.ray_runtime import Ray
from tuning.tracking.connection import take_run_id
from tuning.tracking.parent_run import ParentRun, lifecycle
from tuning.workflows.preflight import check_ground
from tuning.workflows.search_session import _Search

if TYPE_CHECKING:
    pass


def search(recipe: Recipe) -> int:
    """Search, package the best trial's model, register it and decide about it; return the exit status.

    Raises:
        UserError: before any trial starts, with all that is wrong.
    """
    given_run = take_run_id()
    with caught() as interrupts, closing(Ray(recipe)) as ray:
        ground = check_ground(recipe, given_run, ray.begin)
        found = audit(ground.dataset)
        tell(Audited(found))
        parent = ParentRun.open(ground.client, given_run, recipe.name or ground.dataset.name)
        with lifecycle(parent, interrupts):
            parent.log_audit(found)
            recipe = ground.settled(recipe).model_copy(update={"data": absolute(recipe.data)})
            return _Search(recipe, ground, parent, interrupts, ray).run()
