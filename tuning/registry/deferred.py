"""What the end of a search could not do because the server was away: log the package, register it, decide.

The candidate and its decision are kept in the search's folder, and ``python -m tuning sync`` does the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data.atomic_write import write_atomically
from data.dataset.dataset import Dataset
from data.errors import DataError
from data.frozen_model import Value
from tuning.common.event_bus import warn
from tuning.common.formatting import decision_line
from tuning.common.promotion_types import Candidate, Promotion
from tuning.common.search_paths import SearchPaths
from tuning.registry.candidate_store import hand_over, save_candidate
from tuning.registry.promotion import promote
from tuning.tracking.mlflow_sink import is_away
from tuning.tracking.parent_run import NOTE

if TYPE_CHECKING:
    from mlflow import MlflowClient


class Late(Value):
    """A candidate that waits for the server.

    Attributes:
        candidate: without a ``model_uri`` if its package is not logged yet.
        decides: whether it is to be registered too; a training, or a search that was ended, leaves it to promote.
    """

    candidate: Candidate
    decides: bool


def leave(paths: SearchPaths, candidate: Candidate, decides: bool) -> None:
    """Keep a candidate for ``catch_up``, and say so."""
    _keep(paths, Late(candidate=candidate, decides=decides))
    warn(f"MLflow is not there to take the model; python -m tuning sync --run {candidate.run_id} hands it over")


def _keep(paths: SearchPaths, late: Late) -> None:
    write_atomically(paths.late, late.to_json().encode())


def decided(
    client: MlflowClient | None, paths: SearchPaths, candidate: Candidate, dataset: Dataset
) -> tuple[int, Promotion] | None:
    """Register the candidate and decide about it; None where the server is away: then ``sync`` does it."""
    if client is not None and candidate.model_uri:
        try:
            return promote(client, candidate, dataset)
        except Exception as error:
            if not is_away(error):
                raise
    leave(paths, candidate, decides=True)
    return None


def catch_up(client: MlflowClient, paths: SearchPaths, run_id: str) -> str:
    """Do what was left undone, on the parent run ``run_id``; return what came of it, empty if nothing was left.

    Raises:
        DataError: the pictures are no longer those that the candidate was measured on.
    """
    if not paths.late.exists():
        return ""
    late = Late.from_json(paths.late.read_text())
    candidate = late.candidate.model_copy(update={"run_id": run_id})
    if not candidate.model_uri:
        candidate = candidate.model_copy(update={"model_uri": hand_over(client, paths.package, run_id)})
        _keep(paths, Late(candidate=candidate, decides=late.decides))  # or a second try would log it twice
        save_candidate(client, candidate)
    if late.decides:
        sentence = _decide(client, paths, candidate)
    else:
        sentence = f"the model of {candidate.name} is logged; python -m tuning promote --run {run_id} registers it"
    paths.late.unlink()
    return sentence


def _decide(client: MlflowClient, paths: SearchPaths, candidate: Candidate) -> str:
    dataset = Dataset.from_json(paths.dataset.read_text())
    if dataset.fingerprint != candidate.data_fingerprint or not dataset.root.exists():
        raise DataError(
            f"the pictures of {candidate.name} must be where they were searched, {dataset.root}, but they are not; "
            "put them back and sync again"
        )
    version, promotion = promote(client, candidate, dataset)
    decision = decision_line(candidate, version, promotion)
    tags = {"promotion": promotion.alias, "promotion_reason": promotion.reason, "version": str(version)}
    note = client.get_run(candidate.run_id).data.tags.get(NOTE, "")
    for name, text in {**tags, NOTE: f"{decision}\n\n{note.partition(chr(10) * 2)[2]}"}.items():
        client.set_tag(candidate.run_id, name, text)
    return decision
