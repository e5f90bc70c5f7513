"""Deliver queued data of searches to MLflow: metrics, files, models with their promotion, and run statuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from data.errors import UserError
from data.frozen_model import FrozenModel

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from tuning.common.search_paths import SearchPaths

EXAMPLE = "freezeline sync PARENT_RUN_ID"
POSITIONALS = ("run",)


class Options(FrozenModel):
    """The options of ``sync``."""

    run: str = Field("", description="ID of the search's parent run; empty: all searches on this machine")


def run(options: Options, _mlflow_run_id: str | None) -> int:
    """Deliver to the configured tracking server; return exit status 1 if anything is undelivered."""
    from tuning.tracking.connection import connect
    from tuning.tracking.parent_run import find_searches
    from tuning.ui.console import print_tables

    searches = find_searches(options.run)
    if not searches:
        print_tables("no search on this machine has anything to deliver")
        return 0
    client = connect()
    problems: list[str] = []
    for paths in searches:
        try:
            problems += _sync_search(client, paths)
        except UserError as error:
            problems += error.problems
    print_tables(*(f"not delivered: {problem}" for problem in problems))
    return 1 if problems else 0


def _sync_search(client: MlflowClient, paths: SearchPaths) -> tuple[str, ...]:
    """Deliver one search and print the result; return the undelivered operations.

    Raises:
        TrackingError: another version started the search, the search is still running, or its parent run does not
            exist on this server.
    """
    from tuning.registry.deferred import complete_deferred
    from tuning.tracking.parent_run import ParentRun, RunTarget
    from tuning.ui.console import print_tables

    paths.check_schema()
    target = RunTarget.from_json(paths.target.read_text()).resolve(client)
    writer = ParentRun.from_target(target, client).writer
    num_pending = writer.pending_count
    undelivered = writer.close()
    print_tables(f"search {target.run_id}: {num_pending - writer.pending_count} operations delivered")
    if undelivered:
        return undelivered
    decision = complete_deferred(client, paths, target.run_id)
    if decision:
        print_tables(decision)
    return ()
