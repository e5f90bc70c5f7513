"""The budget of a resumed search: what its recipe leaves, or a new one."""

from __future__ import annotations

from pydantic import Field

from data.frozen_model import FrozenModel
from tuning.recipe.schema import EVENTS, QUIET, EventsForm, Recipe


class ResumeRequest(FrozenModel):
    """The options of ``resume``."""

    run: str = Field(min_length=1, description="the parent run of the search")
    trials: int | None = Field(
        None, ge=1, le=100_000, description="configurations more than it has tried; empty: what its own budget leaves"
    )
    minutes: float | None = Field(
        None, gt=0, le=1e6, description="from this command to its end; empty: what its own budget leaves"
    )

    quiet: bool = QUIET
    events: EventsForm = EVENTS

    @property
    def has_new_budget(self) -> bool:
        """Whether the search gets a new budget."""
        return self.trials is not None or self.minutes is not None


def recipe_for_resume(recipe: Recipe, options: ResumeRequest, tried: int) -> Recipe:
    """Return the recipe with the budget of what is to come; ``tried`` is how many configurations it has tried."""
    if not options.has_new_budget:
        return recipe
    total = None if options.trials is None else tried + options.trials
    return recipe.model_copy(update={"trials": total, "minutes": options.minutes})
