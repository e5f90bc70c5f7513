"""Restore the previous champion."""

from __future__ import annotations

from pydantic import Field

from data.frozen_model import FrozenModel

EXAMPLE = "freezeline rollback photos --reason 'wrong on the new camera'"
POSITIONALS = ("name",)


class Options(FrozenModel):
    """The options of ``rollback``."""

    name: str = Field(min_length=1, description="name of the registered model")
    reason: str = Field(min_length=1, description="the reason, recorded in the champion history")


def run(options: Options, _mlflow_run_id: str | None) -> int:
    """Move the champion alias back to the previous champion, after loading it in a clean process."""
    from tuning.registry.rollback import rollback
    from tuning.tracking.connection import connect_to_existing
    from tuning.ui.console import print_tables

    change = rollback(connect_to_existing(), options.name, options.reason)
    print_tables(
        f"models:/{options.name}@champion is version {change.version} again, after {change.previous}: {change.reason}."
    )
    return 0
