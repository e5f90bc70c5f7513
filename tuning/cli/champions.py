"""Show the history of champions with reasons."""

from __future__ import annotations

from pydantic import Field

from data.frozen_model import FrozenModel

EXAMPLE = "python -m tuning champions --name digits"


class Options(FrozenModel):
    """The options of ``champions``."""

    name: str = Field(min_length=1, description="name of the registered model")


def run(options: Options, _mlflow_run_id: str | None) -> int:
    """Print the champion history of a registered model, and the current version of each alias."""
    from tuning.registry.client import CHALLENGER, CHAMPION, ModelRegistry
    from tuning.tracking.connection import connect
    from tuning.ui.console import print_tables
    from tuning.ui.tables.champions import alias_lines, history_table

    registry = ModelRegistry(connect(), options.name)
    registry.check_exists()
    state = registry.state()
    current = {CHAMPION: state.champion, CHALLENGER: registry.version_of_alias(CHALLENGER)}
    print_tables(history_table(options.name, state.changes), *alias_lines(options.name, state.changes, current))
    return 0
