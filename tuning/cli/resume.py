"""Go on with a search that was ended or killed, or make a finished one longer."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from data.values import Value
from tuning.options import parse
from tuning.recipe import EVENTS, QUIET, EventsForm

EXAMPLE = "python -m tuning resume --run PARENT_RUN_ID --trials 20"


class ResumeOptions(Value):
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
    def extends(self) -> bool:
        """Whether the search gets a new budget."""
        return self.trials is not None or self.minutes is not None


OPTIONS = ResumeOptions


def run(arguments: Sequence[str]) -> int:
    """Run what is left of the search's trials in the same parent run, and finish it."""
    options = parse(ResumeOptions, arguments)
    from tuning.views.watching import watched

    def work() -> int:
        from tuning.job import resume

        return resume(options)

    return watched("resume", options.quiet, options.events, work)
