"""Deliver to MLflow what searches could not: metrics, files, models and their decisions, the ends of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from data.errors import UserError
from data.frozen_model import FrozenModel
from tuning.cli.parser import parse

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from tuning.common.search_paths import SearchPaths

EXAMPLE = "python -m tuning sync --run PARENT_RUN_ID"


class SyncOptions(FrozenModel):
    """The options of ``sync``."""

    run: str = Field("", description="the search's parent run; empty: every search of this machine")


OPTIONS = SyncOptions


def run(arguments: Sequence[str]) -> int:
    """Deliver to the server that the environment names; exit status 1 if something is left."""
    options = parse(SyncOptions, arguments)
    from tuning.common.event_bus import print_table
    from tuning.tracking.connection import connect, pop_run_id_from_env
    from tuning.tracking.sync import find_searches

    pop_run_id_from_env()
    found = find_searches(options.run)
    client = connect()
    problems: list[str] = []
    for paths in found:
        try:
            problems += _one(client, paths)
        except UserError as error:
            problems += error.problems
    if not found:
        print_table("no search of this machine has anything to deliver")
    print_table(*(f"left: {problem}" for problem in problems))
    return 1 if problems else 0


def _one(client: MlflowClient, paths: SearchPaths) -> tuple[str, ...]:
    """Deliver one search and say what was; return what is left."""
    from tuning.common.event_bus import print_table
    from tuning.registry.deferred import complete_deferred
    from tuning.tracking.sync import deliver_outbox

    synced = deliver_outbox(client, paths)
    print_table(f"search {synced.run_id}: {synced.delivered} messages delivered")
    if synced.undelivered:
        return synced.undelivered
    decision = complete_deferred(client, paths, synced.run_id)
    if decision:
        print_table(decision)
    return ()
