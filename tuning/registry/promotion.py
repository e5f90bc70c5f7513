"""Carrying out a promotion in MLflow's model registry.

A version is registered, loaded back in a clean process, decided when its turn comes (``tuning.registry.promotion_queue``), tagged with
the evidence, and given its alias. Whatever ends this process on the way, ``promote`` again goes on.
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
from tuning.registry.champion_history import previous_champion, utc_now
from tuning.registry.client import ModelRegistry
from tuning.registry.gate import decide
from tuning.registry.model_card import render_model_card
from tuning.registry.promotion_queue import Turn
from tuning.registry.smoke_test import ModelLoadError, ReferencePredictions, absolute_uri, verify_model_loads
from tuning.tracking.ui_links import MlflowLinks, absolute_url

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from data.dataset.dataset import Dataset

SET_MANUALLY = "someone gave it the alias by hand"
CHAMPION, CHALLENGER = "champion", "challenger"


def promote(client: MlflowClient, candidate: Candidate, dataset: Dataset, force: str = "") -> tuple[int, Promotion]:
    """Register the candidate, decide on the test pictures of ``dataset``, move the alias; return its version.

    A candidate that is champion already stays it, with the reason that it became it for. ``force`` is a person's
    reason to make it champion against the gate.

    Raises:
        LoadBackError: the version can't be loaded back, or answers otherwise; no alias was moved.
        TrackingError: someone else moved an alias at the same time.
    """
    versions = ModelRegistry(client, candidate.name)
    with _enqueue(versions, candidate) as turn:
        _verify_loads(versions, candidate, turn.version)
        turn.wait()
        holder = versions.version_of_alias(CHAMPION)
        if holder == turn.version:
            promotion = _already_champion(versions, holder)
        else:
            champion = None if holder is None else _evaluate_champion(versions, candidate, dataset, holder)
            promotion = decide(candidate, champion, force)
            turn.check()
            _apply_promotion(versions, candidate, turn.version, promotion, holder)
        if promotion.alias == CHAMPION and versions.version_of_alias(CHALLENGER) == turn.version:
            versions.delete_alias(CHALLENGER)  # a champion is nobody's challenger
    return turn.version, promotion


def rollback(client: MlflowClient, name: str, reason: str) -> ChampionChange:
    """Give the alias back to the champion before the one that has it; return what happened.

    Raises:
        TrackingError: there is no such model, no champion, or none before it.
        LoadBackError: the version can't be loaded back; the alias stays.
    """
    versions = ModelRegistry(client, name)
    versions.check_exists()
    holder = versions.version_of_alias(CHAMPION)
    if holder is None:
        raise TrackingError(f"rollback needs a champion, but {name} has none; promote a version.")
    version = _previous_champion(versions, holder)
    with Turn.of_known(versions, version) as turn:
        _verify_loads(versions, load_candidate_of_version(client, name, version), version)
        turn.wait()
        now_holding = versions.version_of_alias(CHAMPION)
        if now_holding != holder:
            raise TrackingError(
                f"rollback goes back from version {holder} of {name}, but {now_holding} became champion meanwhile; "
                "look at python -m tuning champions and run rollback again."
            )
        turn.check()
        versions.set_alias(CHAMPION, version)
        return _record_change(versions, version, holder, "rolled back", reason)


def _previous_champion(versions: ModelRegistry, holder: int) -> int:
    version = previous_champion(versions.history(), holder)
    if version is None:
        raise TrackingError(
            f"rollback needs an earlier champion, but version {holder} is the first of {versions.name}; "
            "promote another version with --force and a reason."
        )
    return version


def _enqueue(versions: ModelRegistry, candidate: Candidate) -> Turn:
    """Return the turn of the version that the candidate's package already has, or of a new one."""
    versions.create_if_missing()
    source = versions.client.get_logged_model(candidate.model_id).artifact_location
    known = versions.version_of_source(source)
    if known is not None:
        return Turn.of_known(versions, known)
    return Turn.of_new(versions, source, candidate.run_id, candidate.model_id)


def _verify_loads(versions: ModelRegistry, candidate: Candidate, version: int) -> None:
    """See that a clean process loads the version by its name and gets the logged predictions; tag it if not."""
    import mlflow

    proof = ReferencePredictions.from_json(
        mlflow.artifacts.load_text(f"runs:/{candidate.run_id}/{reference_predictions_artifact(candidate.model_id)}")
    )
    try:
        verify_model_loads(f"models:/{candidate.name}/{version}", proof, absolute_uri(mlflow.get_tracking_uri()))
    except ModelLoadError as error:
        versions.set_tags(version, {GATE_TAG: "broken", REASON_TAG: str(error)})
        raise


def _already_champion(versions: ModelRegistry, version: int) -> Promotion:
    """Return why a version is champion, and mend the history where whoever made it champion ended before that."""
    reason = versions.tags(version).get(REASON_TAG) or SET_MANUALLY
    events = versions.history()
    if not events or events[-1].version != version:
        _record_change(versions, version, events[-1].version if events else None, "promoted", reason)
    return Promotion(alias="champion", reason=reason, evidence={})


def _evaluate_champion(versions: ModelRegistry, candidate: Candidate, dataset: Dataset, version: int) -> Champion:
    """Return today's champion, asked about the candidate's test pictures where that can be done."""
    classes = tuple(json.loads(versions.tags(version).get(CLASSES_TAG, "[]")))
    predicted, record = None, None
    if set(classes) == set(candidate.classes):
        with contextlib.suppress(TrackingError):  # its package is gone, or reads other pictures
            model = load_model(f"models:/{candidate.name}/{version}")
            probabilities, _ = predict_proba(model, dataset, dataset.split("test"))
            predicted = tuple(int(index) for index in np.argmax(probabilities, axis=1))
    with contextlib.suppress(TrackingError):  # registered by other means: nobody knows what it has seen
        record = load_candidate_of_version(versions.client, candidate.name, version)
    return Champion(
        version=version,
        classes=classes,
        y_pred=predicted,
        seen_hashes=frozenset(record.seen_hashes if record else ()),
        test_hashes=frozenset(record.test_hashes if record else ()),
    )


def _apply_promotion(
    versions: ModelRegistry, candidate: Candidate, version: int, promotion: Promotion, holder: int | None
) -> None:
    versions.set_tags(version, _tags(candidate, promotion, holder))
    versions.set_description(
        version, render_model_card(candidate, version, promotion, _run_link(versions.client, candidate.run_id))
    )
    versions.set_alias(promotion.alias, version)
    if promotion.alias == CHAMPION:
        kind: ChangeKind = "forced" if promotion.forced else "promoted"
        _record_change(versions, version, holder, kind, promotion.reason)


def _tags(candidate: Candidate, promotion: Promotion, holder: int | None) -> dict[str, str]:
    """Return what a version's tags say of it: numbers, evidence, decision."""
    spans = {f"{name}_95": f"{low:.6f} to {high:.6f}" for name, (low, high) in candidate.intervals.items()}
    return {
        MODEL_ID_TAG: candidate.model_id,
        CLASSES_TAG: json.dumps(candidate.classes),
        DATA_FINGERPRINT_TAG: candidate.data_fingerprint,
        GIT_COMMIT_TAG: candidate.commit,
        GATE_TAG: promotion.alias,
        FORCED_TAG: str(promotion.forced).lower(),
        REASON_TAG: promotion.reason,
        EVIDENCE_TAG: json.dumps(promotion.evidence),
        PREVIOUS_CHAMPION_TAG: "" if holder is None else str(holder),
        **{name: f"{value:.6f}" for name, value in candidate.metrics.items()},
        **spans,
    }


def _record_change(
    versions: ModelRegistry, version: int, previous: int | None, kind: ChangeKind, reason: str
) -> ChampionChange:
    events = versions.history()
    number = 1 + (events[-1].number if events else 0)
    event = ChampionChange(number=number, version=version, previous=previous, kind=kind, reason=reason, at=utc_now())
    versions.append_history(event)
    return event


def _run_link(client: MlflowClient, run_id: str) -> str:
    """Return a Markdown link to a run where there is a server, else its id."""
    import mlflow

    uri = mlflow.get_tracking_uri()
    if not uri.startswith("http"):
        return f"`{run_id}`"
    experiment = client.get_run(run_id).info.experiment_id
    return f"[{run_id}]({absolute_url(uri, MlflowLinks(experiment, run_id, {}).run(run_id))})"
