"""Promotions deferred because the MLflow server was unavailable at the end of a search.

The candidate is saved in the search's folder. ``freezeline sync`` then logs the package, registers it and runs
the gate.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from data.atomic_write import write_atomically
from data.dataset.dataset import Dataset
from data.errors import DataError
from data.frozen_model import FrozenModel
from tuning.common.formatting import format_decision
from tuning.common.names import NOTE_TAG, PROMOTION_REASON_TAG, PROMOTION_TAG, VERSION_TAG
from tuning.common.promotion_types import Candidate, Promotion
from tuning.common.search_paths import SearchPaths
from tuning.registry.candidate_store import link_metrics, log_candidate_package, save_candidate
from tuning.registry.promotion import promote
from tuning.registry.smoke_test import CleanProcess
from tuning.tracking.mlflow_sink import is_unavailable

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)


class DeferredPromotion(FrozenModel):
    """A candidate that waits for the MLflow server, without a ``model_uri`` if its package is not logged yet.

    With ``needs_decision``, ``sync`` registers it too; the user promotes that of a training or an interrupted search.
    """

    candidate: Candidate
    needs_decision: bool


def defer(paths: SearchPaths, candidate: Candidate, needs_decision: bool) -> None:
    """Save a candidate for ``complete_deferred`` and warn the user."""
    _save(paths, DeferredPromotion(candidate=candidate, needs_decision=needs_decision))
    logger.warning(
        "the MLflow server is unavailable, so the model is saved on this machine; freezeline sync %s delivers it",
        candidate.run_id,
    )


def _save(paths: SearchPaths, deferred: DeferredPromotion) -> None:
    write_atomically(paths.deferred, deferred.to_json().encode())


def promote_or_defer(
    client: MlflowClient | None,
    paths: SearchPaths,
    candidate: Candidate,
    dataset: Dataset,
    clean_process: CleanProcess | None,
) -> tuple[int, Promotion] | None:
    """Promote the candidate; defer that and return None if the server is unavailable."""
    if client is not None and candidate.model_uri:
        try:
            return promote(client, candidate, dataset, clean_process=clean_process)
        except Exception as error:
            if not is_unavailable(error):
                raise
    defer(paths, candidate, needs_decision=True)
    return None


def promotion_tags(version: int, promotion: Promotion) -> dict[str, str]:
    """Return the tags of a run whose candidate was decided about."""
    return {PROMOTION_TAG: promotion.alias, PROMOTION_REASON_TAG: promotion.reason, VERSION_TAG: str(version)}


def complete_deferred(client: MlflowClient, paths: SearchPaths, run_id: str) -> str:
    """Complete the deferred promotion of the parent run ``run_id``.

    Returns:
        The outcome as text; empty if nothing was deferred.

    Raises:
        DataError: the images have changed since the candidate was evaluated.
    """
    if not paths.deferred.exists():
        return ""
    deferred = DeferredPromotion.from_json(paths.deferred.read_text())
    candidate = deferred.candidate.model_copy(update={"run_id": run_id})
    if not candidate.model_uri:
        candidate = candidate.model_copy(update={"model_uri": log_candidate_package(client, paths.package, run_id)})
        # Saved before the next step: a second attempt must not log the package twice.
        _save(paths, DeferredPromotion(candidate=candidate, needs_decision=deferred.needs_decision))
        save_candidate(client, candidate)
        link_metrics(client, candidate, Dataset.from_json(paths.dataset.read_text()))
    if deferred.needs_decision:
        outcome = _promote(client, paths, candidate)
    else:
        outcome = f"the model of {candidate.name} is logged; freezeline promote {run_id} registers it"
    paths.deferred.unlink()
    return outcome


def _promote(client: MlflowClient, paths: SearchPaths, candidate: Candidate) -> str:
    """Promote the candidate and write the decision on its run."""
    dataset = Dataset.from_json(paths.dataset.read_text())
    if dataset.fingerprint != candidate.data_fingerprint or not dataset.root.exists():
        raise DataError(
            f"the images of {candidate.name} must be at {dataset.root}, as during the search, but they are missing or "
            "changed; restore them and run sync again"
        )
    version, promotion = promote(client, candidate, dataset)
    decision = format_decision(candidate, version, promotion)
    note = client.get_run(candidate.run_id).data.tags.get(NOTE_TAG, "")
    _, _, rest = note.partition("\n\n")  # the first paragraph is the decision
    for name, text in {**promotion_tags(version, promotion), NOTE_TAG: f"{decision}\n\n{rest}"}.items():
        client.set_tag(candidate.run_id, name, text)
    return decision
