"""What the end of a search could not do because the server was away: log the package, register it, decide.

The candidate and its decision are kept in the search's folder, and ``python -m tuning sync`` does the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data.atomic_write import write_atomically
from data.dataset.dataset import Dataset
from data.errors import DataError
from data.frozen_model import FrozenModel
from tuning.common.event_bus import warning
from tuning.common.formatting import format_decision
from tuning.common.names import NOTE_TAG, PROMOTION_REASON_TAG, PROMOTION_TAG, VERSION_TAG
from tuning.common.promotion_types import Candidate, Promotion
from tuning.common.search_paths import SearchPaths
from tuning.registry.candidate_store import log_candidate_package, save_candidate
from tuning.registry.promotion import promote
from tuning.tracking.mlflow_sink import is_unavailable

if TYPE_CHECKING:
    from mlflow import MlflowClient


class DeferredPromotion(FrozenModel):
    """A candidate that waits for the server.

    Attributes:
        candidate: without a ``model_uri`` if its package is not logged yet.
        decides: whether it is to be registered too; a training, or a search that was ended, leaves it to promote.
    """

    candidate: Candidate
    needs_decision: bool


def defer(paths: SearchPaths, candidate: Candidate, needs_decision: bool) -> None:
    """Keep a candidate for ``complete_deferred``, and say so."""
    _save(paths, DeferredPromotion(candidate=candidate, needs_decision=needs_decision))
    warning(f"MLflow is not there to take the model; python -m tuning sync --run {candidate.run_id} hands it over")


def _save(paths: SearchPaths, late: DeferredPromotion) -> None:
    write_atomically(paths.deferred, late.to_json().encode())


def promote_or_defer(
    client: MlflowClient | None, paths: SearchPaths, candidate: Candidate, dataset: Dataset
) -> tuple[int, Promotion] | None:
    """Register the candidate and decide about it; None where the server is away: then ``sync`` does it."""
    if client is not None and candidate.model_uri:
        try:
            return promote(client, candidate, dataset)
        except Exception as error:
            if not is_unavailable(error):
                raise
    defer(paths, candidate, needs_decision=True)
    return None


def complete_deferred(client: MlflowClient, paths: SearchPaths, run_id: str) -> str:
    """Do what was left undone, on the parent run ``run_id``; return what came of it, empty if nothing was left.

    Raises:
        DataError: the pictures are no longer those that the candidate was measured on.
    """
    if not paths.deferred.exists():
        return ""
    late = DeferredPromotion.from_json(paths.deferred.read_text())
    candidate = late.candidate.model_copy(update={"run_id": run_id})
    if not candidate.model_uri:
        candidate = candidate.model_copy(update={"model_uri": log_candidate_package(client, paths.package, run_id)})
        _save(
            paths, DeferredPromotion(candidate=candidate, needs_decision=late.needs_decision)
        )  # or a second try would log it twice
        save_candidate(client, candidate)
    if late.needs_decision:
        sentence = _decide(client, paths, candidate)
    else:
        sentence = f"the model of {candidate.name} is logged; python -m tuning promote --run {run_id} registers it"
    paths.deferred.unlink()
    return sentence


def _decide(client: MlflowClient, paths: SearchPaths, candidate: Candidate) -> str:
    dataset = Dataset.from_json(paths.dataset.read_text())
    if dataset.fingerprint != candidate.data_fingerprint or not dataset.root.exists():
        raise DataError(
            f"the pictures of {candidate.name} must be where they were searched, {dataset.root}, but they are not; "
            "put them back and sync again"
        )
    version, promotion = promote(client, candidate, dataset)
    decision = format_decision(candidate, version, promotion)
    tags = {PROMOTION_TAG: promotion.alias, PROMOTION_REASON_TAG: promotion.reason, VERSION_TAG: str(version)}
    note = client.get_run(candidate.run_id).data.tags.get(NOTE_TAG, "")
    for name, text in {**tags, NOTE_TAG: f"{decision}\n\n{note.partition(chr(10) * 2)[2]}"}.items():
        client.set_tag(candidate.run_id, name, text)
    return decision
