"""Show who was champion after whom, and why."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from data.frozen_model import FrozenModel
from tuning.cli.parser import parse

EXAMPLE = "python -m tuning champions --name digits"


class ChampionsOptions(FrozenModel):
    """The options of ``champions``."""

    name: str = Field(min_length=1, description="of the registered model")


OPTIONS = ChampionsOptions


def run(arguments: Sequence[str]) -> int:
    """Print the history of a registered model's champions, and who holds each alias now."""
    options = parse(ChampionsOptions, arguments)
    from tuning.common.event_bus import print_table
    from tuning.registry.client import ModelRegistry
    from tuning.registry.promotion import CHALLENGER, CHAMPION
    from tuning.tracking.connection import connect, pop_run_id_from_env
    from tuning.ui.tables.champions import alias_lines, history_table

    pop_run_id_from_env()
    versions = ModelRegistry(connect(), options.name)
    versions.check_exists()
    holders = {alias: versions.version_of_alias(alias) for alias in (CHAMPION, CHALLENGER)}
    events = versions.history()
    print_table(history_table(options.name, events), *alias_lines(options.name, events, holders))
    return 0
