"""Give the alias back to the champion before."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from data.values import Value
from tuning.options import parse

EXAMPLE = "python -m tuning rollback --name digits --reason 'wrong on the new camera'"


class RollbackOptions(Value):
    """The options of ``rollback``."""

    name: str = Field(min_length=1, description="of the registered model")
    reason: str = Field(min_length=1, description="why, for the history")


OPTIONS = RollbackOptions


def run(arguments: Sequence[str]) -> int:
    """Roll back to the previous champion, after it was loaded in a clean process."""
    options = parse(RollbackOptions, arguments)
    from tuning.registry import rollback
    from tuning.tracking.parent import connect, take_run_id
    from tuning.views.lines import show

    take_run_id()
    event = rollback(connect(), options.name, options.reason)
    show(f"models:/{options.name}@champion is version {event.version} again, after {event.previous}: {event.reason}.")
    return 0
