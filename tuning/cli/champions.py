"""Show who was champion after whom, and why."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from data.frozen_model import Value
from tuning.cli.parser import parse

EXAMPLE = "python -m tuning champions --name digits"


class ChampionsOptions(Value):
    """The options of ``champions``."""

    name: str = Field(min_length=1, description="of the registered model")


OPTIONS = ChampionsOptions


def run(arguments: Sequence[str]) -> int:
    """Print the history of a registered model's champions, and who holds each alias now."""
    options = parse(ChampionsOptions, arguments)
    from tuning.common.event_bus import show
    from tuning.registry.client import Versions
    from tuning.registry.promotion import CHALLENGER, CHAMPION
    from tuning.tracking.connection import connect, take_run_id
    from tuning.ui.tables.champions import history_table, holder_lines

    take_run_id()
    versions = Versions(connect(), options.name)
    versions.check()
    holders = {alias: versions.holder(alias) for alias in (CHAMPION, CHALLENGER)}
    events = versions.history()
    show(history_table(options.name, events), *holder_lines(options.name, events, holders))
    return 0
