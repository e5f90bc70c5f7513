"""Promotion in MLflow's model registry.

A promotion registers a version, runs the smoke test and the gate, writes the evidence as tags and moves the alias
(``tuning.registry.champion_change``). If the process ends in between, a repeated ``promote`` resumes there.
"""

from __future__ import annotations

import contextlib
import json
import logging
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from data.errors import TrackingError, last_line
from models.packaging.inference import predict_proba
from tuning.common.events import log_stage
from tuning.common.names import (
    CLASSES_TAG,
    DATA_FINGERPRINT_TAG,
    EVIDENCE_TAG,
    FORCED_TAG,
    GATE_TAG,
    GIT_COMMIT_TAG,
    PREVIOUS_CHAMPION_TAG,
    REASON_TAG,
)
from tuning.common.promotion_types import Candidate, Champion, ChangeKind, Promotion
from tuning.common.redaction import redact
from tuning.registry.candidate_store import load_candidate_of_version, load_model, reference_predictions_artifact
from tuning.registry.champion_change import change_champion, decide_until_unchanged, promotion_lock
from tuning.registry.client import CHALLENGER, CHAMPION, ModelRegistry, RegistryState
from tuning.registry.gate import decide
from tuning.registry.model_card import render_description, render_model_card
from tuning.registry.smoke_test import CleanProcess, ModelLoadError, ReferencePredictions, verify_model_loads
from tuning.tracking.connection import absolute_uri, tracking_uri
from tuning.tracking.ui_links import MlflowLinks, absolute_url

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from data.dataset.dataset import Dataset

logger = logging.getLogger(__name__)

SET_MANUALLY = "the alias was set manually"


def promote(
    client: MlflowClient,
    candidate: Candidate,
    dataset: Dataset,
    force: str = "",
    clean_process: CleanProcess | None = None,
) -> tuple[int, Promotion]:
    """Register the candidate, run the gate and move the alias; return the version and the decision.

    A candidate that is champion already stays champion, with its original reason. ``force`` is a person's reason to
    make it champion even if the gate rejects it. ``clean_process`` runs the smoke test, by default a new one.

    Raises:
        ModelLoadError: the version failed the smoke test; no alias was moved.
        TrackingError: the champion was changed by others again and again.
    """
    registry = ModelRegistry(client, candidate.name)
    with promotion_lock(candidate.name):
        registry.create_if_missing(render_description(candidate))
        source = client.get_logged_model(candidate.model_id).artifact_location
        version = registry.register(source, candidate.run_id, candidate.model_id, _candidate_tags(candidate))
        verify_loads(registry, candidate, version, clean_process)
        promotion = decide_until_unchanged(registry, partial(_promote, registry, candidate, dataset, force, version))
        if promotion.alias == CHAMPION and registry.version_of_alias(CHALLENGER) == version:
            registry.delete_alias(CHALLENGER)  # a version has at most one of the two aliases
    return version, promotion


def verify_loads(
    registry: ModelRegistry, candidate: Candidate, version: int, clean_process: CleanProcess | None = None
) -> None:
    """Run the smoke test of a version; write a failure on the version as tags."""
    import mlflow

    log_stage(logger, f"checking that version {version} loads in a clean process")
    artifact = reference_predictions_artifact(candidate.model_id)
    reference = ReferencePredictions.from_json(mlflow.artifacts.load_text(f"runs:/{candidate.run_id}/{artifact}"))
    try:
        model_uri = f"models:/{candidate.name}/{version}"
        verify_model_loads(model_uri, reference, absolute_uri(tracking_uri()), clean_process)
    except ModelLoadError as error:
        registry.set_tags(version, {GATE_TAG: "broken", REASON_TAG: str(error)})
        raise


def _promote(
    registry: ModelRegistry, candidate: Candidate, dataset: Dataset, force: str, version: int, before: RegistryState
) -> Promotion | None:
    """Decide against the champion of ``before`` and apply the decision; return None if it was changed by others."""
    if before.champion == version:
        return _already_champion(registry, before, version)
    champion = None if before.champion is None else _evaluate_champion(registry, candidate, dataset, before.champion)
    promotion = decide(candidate, champion, force)
    registry.set_tags(version, _decision_tags(promotion, before.champion))
    run_link = _run_link(registry.client, candidate.run_id)
    registry.set_description(version, render_model_card(candidate, version, promotion, run_link))
    if promotion.alias == CHALLENGER:
        registry.set_alias(CHALLENGER, version)
        return promotion
    kind: ChangeKind = "forced" if promotion.forced else "promoted"
    return promotion if change_champion(registry, before, version, kind, promotion.reason) else None


def _already_champion(registry: ModelRegistry, before: RegistryState, version: int) -> Promotion | None:
    """Return the decision that made a version champion; add the change to the history if an earlier call did not."""
    tags = registry.tags(version)
    reason, forced = tags.get(REASON_TAG) or SET_MANUALLY, tags.get(FORCED_TAG) == "true"
    kind: ChangeKind = "forced" if forced else "promoted"
    is_recorded = bool(before.changes) and before.changes[-1].version == version
    if not is_recorded and change_champion(registry, before, version, kind, reason) is None:
        return None
    return Promotion(alias="champion", reason=reason, evidence={}, forced=forced)


def _evaluate_champion(registry: ModelRegistry, candidate: Candidate, dataset: Dataset, version: int) -> Champion:
    """Return the current champion, with its predictions for the candidate's test images where they can be computed."""
    log_stage(logger, f"evaluating the champion, version {version}, on the same images")
    classes = tuple(json.loads(registry.tags(version).get(CLASSES_TAG, "[]")))
    y_pred, champion_candidate, problem = None, None, ""
    if set(classes) == set(candidate.classes):
        try:
            model = load_model(f"models:/{candidate.name}/{version}")
            probabilities, _ = predict_proba(model, dataset, dataset.split("test"))
            y_pred = tuple(int(index) for index in np.argmax(probabilities, axis=1))
        except TrackingError as error:  # the package is gone, or cannot read these images
            problem = redact(last_line(error.__cause__ or error))
    with contextlib.suppress(TrackingError):  # not registered by this project: its training images are unknown
        champion_candidate = load_candidate_of_version(registry.client, candidate.name, version)
    return Champion(
        version=version,
        classes=classes,
        y_pred=y_pred,
        problem=problem,
        seen_hashes=frozenset(champion_candidate.seen_hashes if champion_candidate else ()),
        test_hashes=frozenset(champion_candidate.test_hashes if champion_candidate else ()),
    )


def _candidate_tags(candidate: Candidate) -> dict[str, str]:
    """Return the tags that a version is registered with: identity and test metrics."""
    intervals = {f"{name}_95": f"{low:.6f} to {high:.6f}" for name, (low, high) in candidate.intervals.items()}
    tags = {
        CLASSES_TAG: json.dumps(candidate.classes),
        DATA_FINGERPRINT_TAG: candidate.data_fingerprint,
        GIT_COMMIT_TAG: candidate.commit,
        **{name: f"{value:.6f}" for name, value in candidate.metrics.items()},
        **intervals,
    }
    return {name: text for name, text in tags.items() if text}


def _decision_tags(promotion: Promotion, champion: int | None) -> dict[str, str]:
    """Return the tags of a decision against version ``champion``; without one there is no such tag."""
    tags = {
        GATE_TAG: promotion.alias,
        FORCED_TAG: str(promotion.forced).lower(),
        REASON_TAG: promotion.reason,
        EVIDENCE_TAG: json.dumps(promotion.evidence),
    }
    return tags if champion is None else {**tags, PREVIOUS_CHAMPION_TAG: str(champion)}


def _run_link(client: MlflowClient, run_id: str) -> str:
    """Return a Markdown link to a run on a server, or the run id for a local database."""
    uri = tracking_uri()
    if not uri.startswith("http"):
        return f"`{run_id}`"
    experiment = client.get_run(run_id).info.experiment_id
    return f"[{run_id}]({absolute_url(uri, MlflowLinks(experiment, run_id, {}).run_url(run_id))})"
