"""Delivery of the outboxes of earlier searches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.errors import TrackingError
from tuning.common.search_paths import SearchPaths
from tuning.tracking.parent_run import ParentRun, RunTarget

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class SyncResult:
    """Result for one outbox: the parent run, the number of delivered operations, and the undelivered ones."""

    run_id: str
    num_delivered: int
    undelivered: tuple[str, ...]


def find_searches(run: str) -> list[SearchPaths]:
    """Return the search with the parent run ``run``, or, if it is empty, all searches of the current state schema.

    Raises:
        TrackingError: this machine has no search with this parent run.
    """
    searches = [paths for paths in SearchPaths.all() if paths.target.exists()]
    if not run:
        return [paths for paths in searches if paths.has_current_schema]
    matches = [
        paths for paths in searches if run in {paths.root.name, RunTarget.from_json(paths.target.read_text()).run_id}
    ]
    if not matches:
        raise TrackingError(
            f"run must be the parent run of a search on this machine, got {run!r}, which has no folder here; "
            "set FREEZELINE_HOME to the value that the search used"
        )
    return matches


def deliver_outbox(client: MlflowClient, paths: SearchPaths) -> SyncResult:
    """Deliver the outbox of a search to the client's server.

    Raises:
        TrackingError: another version started the search, the search is still running, or its parent run does not
            exist on this server.
    """
    paths.check_schema()
    target = RunTarget.from_json(paths.target.read_text()).resolve(client)
    parent = ParentRun.from_target(target, client)
    num_pending = parent.writer.pending_count
    undelivered = parent.writer.close()
    return SyncResult(target.run_id, num_pending - parent.writer.pending_count, undelivered)
