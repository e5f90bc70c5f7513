"""Promotion in MLflow's model registry.

A promotion registers a version, runs the smoke test, waits for its place in the queue
(``tuning.registry.promotion_queue``), runs the gate, writes the evidence as tags and moves the alias. If the process
ends in between, a repeated ``promote`` resumes there.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import numpy as np

from data.errors import TrackingError
from models.packaging.inference import predict_proba
from tuning.common.names import (
    CLASSES_TAG,
    DATA_FINGERPRINT_TAG,
    EVIDENCE_TAG,
    FORCED_TAG,
    GATE_TAG,
    GIT_COMMIT_TAG,
    MODEL_ID_TAG,
    PREVIOUS_CHAMPION_TAG,
    REASON_TAG,
)
from tuning.common.promotion_types import Candidate, Champion, ChampionChange, ChangeKind, Promotion
from tuning.registry.candidate_store import load_candidate_of_version, load_model, reference_predictions_artifact
from tuning.registry.champion_history import utc_now
from tuning.registry.client import ModelRegistry
from tuning.registry.gate import decide
from tuning.registry.model_card import render_model_card
from tuning.registry.promotion_queue import Turn
from tuning.registry.smoke_test import ModelLoadError, ReferencePredictions, absolute_uri, verify_model_loads
from tuning.tracking.connection import tracking_uri
from tuning.tracking.ui_links import MlflowLinks, absolute_url

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from data.dataset.dataset import Dataset

SET_MANUALLY = "the alias was set manually"
CHAMPION, CHALLENGER = "champion", "challenger"


def promote(client: MlflowClient, candidate: Candidate, dataset: Dataset, force: str = "") -> tuple[int, Promotion]:
    """Register the candidate, run the gate and move the alias.

    A candidate that is champion already stays champion, with its original reason.

    Args:
        client: client of the tracking server.
        candidate: the candidate, its package logged on its run.
        dataset: data set with the test images that the candidate was evaluated on.
        force: a person's reason to make it champion even if the gate rejects it.

    Returns:
        The version and the decision.

    Raises:
        ModelLoadError: the version failed the smoke test; no alias was moved.
        TrackingError: an alias was moved by another process or person at the same time.
    """
    registry = ModelRegistry(client, candidate.name)
    with _enqueue(registry, candidate) as turn:
        verify_loads(registry, candidate, turn.version)
        turn.wait()
        current = registry.version_of_alias(CHAMPION)
        if current == turn.version:
            promotion = _already_champion(registry, current)
        else:
            champion = None if current is None else _evaluate_champion(registry, candidate, dataset, current)
            promotion = decide(candidate, champion, force)
            turn.check()
            _apply_promotion(registry, candidate, turn.version, promotion, current)
        if promotion.alias == CHAMPION and registry.version_of_alias(CHALLENGER) == turn.version:
            registry.delete_alias(CHALLENGER)  # a version has at most one of the two aliases
    return turn.version, promotion


def _enqueue(registry: ModelRegistry, candidate: Candidate) -> Turn:
    """Return the turn of the version that was registered from the candidate's package, or of a new version."""
    registry.create_if_missing()
    source = registry.client.get_logged_model(candidate.model_id).artifact_location
    version = registry.version_of_source(source)
    if version is not None:
        return Turn.of_known(registry, version)
    return Turn.of_new(registry, source, candidate.run_id, candidate.model_id)


def verify_loads(registry: ModelRegistry, candidate: Candidate, version: int) -> None:
    """Run the smoke test of a version; write a failure on the version as tags."""
    import mlflow

    artifact = reference_predictions_artifact(candidate.model_id)
    reference = ReferencePredictions.from_json(mlflow.artifacts.load_text(f"runs:/{candidate.run_id}/{artifact}"))
    try:
        verify_model_loads(f"models:/{candidate.name}/{version}", reference, absolute_uri(tracking_uri()))
    except ModelLoadError as error:
        registry.set_tags(version, {GATE_TAG: "broken", REASON_TAG: str(error)})
        raise


def _already_champion(registry: ModelRegistry, version: int) -> Promotion:
    """Return the decision that made a version champion; add the change to the history if an earlier call did not."""
    reason = registry.tags(version).get(REASON_TAG) or SET_MANUALLY
    changes = registry.history()
    if not changes or changes[-1].version != version:
        record_change(registry, version, changes[-1].version if changes else None, "promoted", reason)
    return Promotion(alias="champion", reason=reason, evidence={})


def _evaluate_champion(registry: ModelRegistry, candidate: Candidate, dataset: Dataset, version: int) -> Champion:
    """Return the current champion, with its predictions for the candidate's test images where they can be computed."""
    classes = tuple(json.loads(registry.tags(version).get(CLASSES_TAG, "[]")))
    y_pred, champion_candidate = None, None
    if set(classes) == set(candidate.classes):
        with contextlib.suppress(TrackingError):  # the package is gone, or cannot read these images
            model = load_model(f"models:/{candidate.name}/{version}")
            probabilities, _ = predict_proba(model, dataset, dataset.split("test"))
            y_pred = tuple(int(index) for index in np.argmax(probabilities, axis=1))
    with contextlib.suppress(TrackingError):  # not registered by this project: its training images are unknown
        champion_candidate = load_candidate_of_version(registry.client, candidate.name, version)
    return Champion(
        version=version,
        classes=classes,
        y_pred=y_pred,
        seen_hashes=frozenset(champion_candidate.seen_hashes if champion_candidate else ()),
        test_hashes=frozenset(champion_candidate.test_hashes if champion_candidate else ()),
    )


def _apply_promotion(
    registry: ModelRegistry, candidate: Candidate, version: int, promotion: Promotion, current: int | None
) -> None:
    """Write the decision on the version, move the alias and extend the history."""
    registry.set_tags(version, _tags(candidate, promotion, current))
    run_link = _run_link(registry.client, candidate.run_id)
    registry.set_description(version, render_model_card(candidate, version, promotion, run_link))
    registry.set_alias(promotion.alias, version)
    if promotion.alias == CHAMPION:
        kind: ChangeKind = "forced" if promotion.forced else "promoted"
        record_change(registry, version, current, kind, promotion.reason)


def _tags(candidate: Candidate, promotion: Promotion, current: int | None) -> dict[str, str]:
    """Return a version's tags: identity, decision, evidence and test metrics."""
    intervals = {f"{name}_95": f"{low:.6f} to {high:.6f}" for name, (low, high) in candidate.intervals.items()}
    return {
        MODEL_ID_TAG: candidate.model_id,
        CLASSES_TAG: json.dumps(candidate.classes),
        DATA_FINGERPRINT_TAG: candidate.data_fingerprint,
        GIT_COMMIT_TAG: candidate.commit,
        GATE_TAG: promotion.alias,
        FORCED_TAG: str(promotion.forced).lower(),
        REASON_TAG: promotion.reason,
        EVIDENCE_TAG: json.dumps(promotion.evidence),
        PREVIOUS_CHAMPION_TAG: "" if current is None else str(current),
        **{name: f"{value:.6f}" for name, value in candidate.metrics.items()},
        **intervals,
    }


def record_change(
    registry: ModelRegistry, version: int, previous: int | None, kind: ChangeKind, reason: str
) -> ChampionChange:
    """Append a change of the champion to the history and return it."""
    changes = registry.history()
    number = 1 + (changes[-1].number if changes else 0)
    change = ChampionChange(number=number, version=version, previous=previous, kind=kind, reason=reason, at=utc_now())
    registry.append_history(change)
    return change


def _run_link(client: MlflowClient, run_id: str) -> str:
    """Return a Markdown link to a run on a server, or the run id for a local database."""
    uri = tracking_uri()
    if not uri.startswith("http"):
        return f"`{run_id}`"
    experiment = client.get_run(run_id).info.experiment_id
    return f"[{run_id}]({absolute_url(uri, MlflowLinks(experiment, run_id, {}).run_url(run_id))})"
