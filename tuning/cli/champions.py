"""Show the history of champions with reasons."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from data.frozen_model import FrozenModel
from tuning.cli.parser import parse

EXAMPLE = "python -m tuning champions --name digits"


class ChampionsOptions(FrozenModel):
    """The options of ``champions``."""

    name: str = Field(min_length=1, description="name of the registered model")


OPTIONS = ChampionsOptions


def run(arguments: Sequence[str], _mlflow_run_id: str | None) -> int:
    """Print the champion history of a registered model, and the current version of each alias."""
    options = parse(ChampionsOptions, arguments)
    from tuning.registry.client import ModelRegistry
    from tuning.registry.promotion import CHALLENGER, CHAMPION
    from tuning.tracking.connection import connect
    from tuning.ui.console import print_tables
    from tuning.ui.tables.champions import alias_lines, history_table

    registry = ModelRegistry(connect(), options.name)
    registry.check_exists()
    current = {alias: registry.version_of_alias(alias) for alias in (CHAMPION, CHALLENGER)}
    changes = registry.history()
    print_tables(history_table(options.name, changes), *alias_lines(options.name, changes, current))
    return 0
