"""The budget of a resumed search: the rest of the original one, or a new one."""

from __future__ import annotations

from pydantic import Field

from data.frozen_model import FrozenModel
from tuning.recipe.schema import EVENTS, QUIET, EventsForm, Recipe


class ResumeRequest(FrozenModel):
    """The options of ``resume``."""

    run: str = Field(min_length=1, description="ID of the search's parent run")
    trials: int | None = Field(
        None, ge=1, le=100_000, description="number of additional trials; empty: the rest of the original budget"
    )
    minutes: float | None = Field(
        None, gt=0, le=1e6, description="time limit of this command; empty: the rest of the original budget"
    )

    quiet: bool = QUIET
    events: EventsForm = EVENTS

    @property
    def has_new_budget(self) -> bool:
        """Whether the search gets a new budget."""
        return self.trials is not None or self.minutes is not None


def recipe_for_resume(recipe: Recipe, request: ResumeRequest, num_trials: int) -> Recipe:
    """Return the recipe with the requested budget; ``num_trials`` is the number of trials so far."""
    if not request.has_new_budget:
        return recipe
    total = None if request.trials is None else num_trials + request.trials
    return recipe.model_copy(update={"trials": total, "minutes": request.minutes})
