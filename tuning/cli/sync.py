"""Deliver queued data of searches to MLflow: metrics, files, models with their promotion, and run statuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from data.errors import UserError
from data.frozen_model import FrozenModel

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from tuning.common.search_paths import SearchPaths

EXAMPLE = "python -m tuning sync --run PARENT_RUN_ID"


class Options(FrozenModel):
    """The options of ``sync``."""

    run: str = Field("", description="ID of the search's parent run; empty: all searches on this machine")


def run(options: Options, _mlflow_run_id: str | None) -> int:
    """Deliver to the configured tracking server; return exit status 1 if anything is undelivered."""
    from tuning.tracking.connection import connect
    from tuning.tracking.offline_sync import find_searches
    from tuning.ui.console import print_tables

    searches = find_searches(options.run)
    client = connect()
    problems: list[str] = []
    for paths in searches:
        try:
            problems += _sync_search(client, paths)
        except UserError as error:
            problems += error.problems
    if not searches:
        print_tables("no search on this machine has anything to deliver")
    print_tables(*(f"not delivered: {problem}" for problem in problems))
    return 1 if problems else 0


def _sync_search(client: MlflowClient, paths: SearchPaths) -> tuple[str, ...]:
    """Deliver one search and print the result; return the undelivered operations."""
    from tuning.registry.deferred import complete_deferred
    from tuning.tracking.offline_sync import deliver_outbox
    from tuning.ui.console import print_tables

    result = deliver_outbox(client, paths)
    print_tables(f"search {result.run_id}: {result.num_delivered} operations delivered")
    if result.undelivered:
        return result.undelivered
    decision = complete_deferred(client, paths, result.run_id)
    if decision:
        print_tables(decision)
    return ()
