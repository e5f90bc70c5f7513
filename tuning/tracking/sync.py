"""Delivering what searches left in their spools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.errors import TrackingError
from tuning.common.search_paths import SearchPaths
from tuning.tracking.parent_run import ParentRun
from tuning.tracking.run_target import RunTarget

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class SyncResult:
    """What became of one spool: the parent run, how much was delivered, and a sentence for each that was not."""

    run_id: str
    delivered: int
    undelivered: tuple[str, ...]


def find_searches(run: str) -> list[SearchPaths]:
    """Return the search of the parent run ``run``, or every search of this version that has an outbox.

    Raises:
        TrackingError: there is none of that run on this machine.
    """
    found = [paths for paths in SearchPaths.all() if paths.target.exists()]
    if not run:
        return [paths for paths in found if paths.has_current_schema]
    ours = [paths for paths in found if run in {paths.root.name, RunTarget.from_json(paths.target.read_text()).run_id}]
    if not ours:
        raise TrackingError(
            f"run must be the parent run of a search that this machine made, got {run!r}, of which it has no folder; "
            "set FREEZELINE_HOME to where the search ran"
        )
    return ours


def deliver_outbox(client: MlflowClient, paths: SearchPaths) -> SyncResult:
    """Deliver a search's spool to the client's server.

    Raises:
        TrackingError: another version started the search, it is still running, or the run that it began in is not on this server.
    """
    paths.check_schema()
    target = RunTarget.from_json(paths.target.read_text()).resolve(client)
    parent = ParentRun.of(target, client)
    waiting = parent.writer.pending_count
    undelivered = parent.writer.close()
    return SyncResult(target.run_id, waiting - parent.writer.pending_count, undelivered)
