"""Give the alias back to the champion before."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from data.frozen_model import Value
from tuning.cli.parser import parse

EXAMPLE = "python -m tuning rollback --name digits --reason 'wrong on the new camera'"


class RollbackOptions(Value):
    """The options of ``rollback``."""

    name: str = Field(min_length=1, description="of the registered model")
    reason: str = Field(min_length=1, description="why, for the history")


OPTIONS = RollbackOptions


def run(arguments: Sequence[str]) -> int:
    """Roll back to the previous champion, after it was loaded in a clean process."""
    options = parse(RollbackOptions, arguments)
    from tuning.common.event_bus import show
    from tuning.registry.promotion import rollback
    from tuning.tracking.connection import connect, take_run_id

    take_run_id()
    event = rollback(connect(), options.name, options.reason)
    show(f"models:/{options.name}@champion is version {event.version} again, after {event.previous}: {event.reason}.")
    return 0
