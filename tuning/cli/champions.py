"""Show the history of champions with reasons."""

from __future__ import annotations

from pydantic import Field

from data.frozen_model import FrozenModel

EXAMPLE = "freezeline champions photos"
POSITIONALS = ("name",)


class Options(FrozenModel):
    """The options of ``champions``."""

    name: str = Field(min_length=1, description="name of the registered model")


def run(options: Options, _mlflow_run_id: str | None) -> int:
    """Print the champion history of a registered model, and the current version of each alias."""
    from tuning.registry.client import CHALLENGER, CHAMPION, ModelRegistry
    from tuning.tracking.connection import connect_to_existing
    from tuning.ui.console import print_tables
    from tuning.ui.tables.text_table import TextTable

    registry = ModelRegistry(connect_to_existing(), options.name)
    registry.check_exists()
    state = registry.state()
    columns = ("time (UTC)", "version", "previous", "change", "reason")
    rows = [
        [change.at.partition("+")[0], str(change.version), str(change.previous or "-"), change.kind, change.reason]
        for change in state.changes
    ]
    print_tables(TextTable(f"Champions of {options.name}", columns, rows, text_columns=columns, wrapped={"reason"}))
    version_by_alias = {CHAMPION: state.champion, CHALLENGER: registry.version_of_alias(CHALLENGER)}
    print_tables(*(f"models:/{options.name}@{alias}: {_text(number)}" for alias, number in version_by_alias.items()))
    last = state.changes[-1].version if state.changes else None
    if state.champion != last:
        print_tables(f"the champion alias was set outside Freezeline; the last champion in the history: {_text(last)}")
    return 0


def _text(version: int | None) -> str:
    return "none" if version is None else f"version {version}"
