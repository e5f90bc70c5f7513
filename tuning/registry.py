"""Carrying out a promotion in MLflow's model registry.

Aliases have no compare-and-swap, so one promotion at a time is decided and carried out under a lock of this
machine, and the alias is read again after it was written.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

from filelock import FileLock

from data.errors import TrackingError
from data.store import home
from tuning.predicting import probabilities_of
from tuning.promote import METRIC, Candidate, Champion, Promotion, decide

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.pyfunc import PyFuncModel

    from data.dataset import Dataset

CANDIDATE_FILE = "candidate.json"
BY_HAND = "someone gave it the alias by hand"
CHAMPION, CHALLENGER = "champion", "challenger"


def save_candidate(client: MlflowClient, candidate: Candidate) -> None:
    """Keep the candidate on its run, for ``promote``."""
    client.log_text(candidate.run_id, candidate.to_json(indent=2), CANDIDATE_FILE)


def load_candidate(client: MlflowClient, run_id: str) -> Candidate:
    """Return the candidate that a search or a training left on its run.

    Raises:
        TrackingError: if there is no such run, or it packaged no model.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        client.get_run(run_id)
    except MlflowException:
        raise TrackingError(
            f"run must be the id of a search or a training, got {run_id!r}, which does not exist."
        ) from None
    if CANDIDATE_FILE not in {file.path for file in client.list_artifacts(run_id)}:
        raise TrackingError(
            f"run must have packaged a model, but {run_id} has none; "
            "give the parent run of a search that finished a trial."
        )
    return Candidate.from_json(mlflow.artifacts.load_text(f"runs:/{run_id}/{CANDIDATE_FILE}"))


def promote(client: MlflowClient, candidate: Candidate, dataset: Dataset) -> tuple[int, Promotion]:
    """Register the candidate, decide on the test pictures of ``dataset``, move the alias; return its version.

    A candidate that is champion already stays it, with the reason that it became it for.
    """
    (home() / "locks").mkdir(parents=True, exist_ok=True)
    with FileLock(home() / "locks" / f"promote-{candidate.name}.lock"):
        version = _register(client, candidate)
        holder = _holder(client, candidate.name, CHAMPION)
        if holder == version:
            reason = client.get_model_version(candidate.name, str(version)).tags.get("reason") or BY_HAND
            promotion = Promotion(alias="champion", reason=reason, evidence={})
        else:
            champion = None if holder is None else _measure(client, candidate, dataset, holder)
            promotion = decide(candidate, champion)
            _carry_out(client, candidate, version, promotion)
        if promotion.alias == CHAMPION and _holder(client, candidate.name, CHALLENGER) == version:
            client.delete_registered_model_alias(candidate.name, CHALLENGER)  # a champion is nobody's challenger
    return version, promotion


def _register(client: MlflowClient, candidate: Candidate) -> int:
    """Return the candidate's version: the one that its package already has, or a new one."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(candidate.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    model_id = candidate.model_uri.removeprefix("models:/")
    source = client.get_logged_model(model_id).artifact_location
    for version in client.search_model_versions(f"name = '{candidate.name}'"):
        if version.source == source:
            return int(version.version)
    made = client.create_model_version(candidate.name, source, candidate.run_id, model_id=model_id)
    return int(made.version)


def _holder(client: MlflowClient, name: str, alias: str) -> int | None:
    """Return the version that has the alias, or None."""
    version = client.get_registered_model(name).aliases.get(alias)
    return None if version is None else int(version)


def _measure(client: MlflowClient, candidate: Candidate, dataset: Dataset, version: int) -> Champion:
    """Return today's champion, measured on the candidate's test pictures where that can be done."""
    classes = tuple(json.loads(client.get_model_version(candidate.name, str(version)).tags.get("classes", "[]")))
    score = None
    if set(classes) == set(candidate.classes):
        with contextlib.suppress(TrackingError):  # its package is gone, or reads other pictures
            score = _balanced_accuracy(f"models:/{candidate.name}/{version}", dataset)
    return Champion(version=version, classes=classes, score=score)


def _balanced_accuracy(model_uri: str, dataset: Dataset) -> float:
    """Return the packaged model's mean recall over the classes on the test pictures."""
    from models.evaluate import score

    probabilities, labels = probabilities_of(load_model(model_uri), dataset, dataset.split("test"))
    return score(probabilities, labels, dataset.classes).balanced_accuracy


def load_model(model_uri: str) -> PyFuncModel:
    """Return the packaged model at ``model_uri``, loaded with pickle forbidden.

    Raises:
        TrackingError: if there is none, or it is not one of ours.
    """
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        model: PyFuncModel = mlflow.pyfunc.load_model(model_uri)
        return model
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"model must be a packaged model such as models:/NAME@champion, got {model_uri!r}: {error}"
        ) from error


def _carry_out(client: MlflowClient, candidate: Candidate, version: int, promotion: Promotion) -> None:
    tags = {
        "classes": json.dumps(candidate.classes),
        "data_fingerprint": candidate.data_fingerprint,
        "gate": promotion.alias,
        "reason": promotion.reason,
        **{name: f"{value:.6f}" for name, value in candidate.metrics.items()},
    }
    for name, text in tags.items():
        client.set_model_version_tag(candidate.name, str(version), name, text)
    client.update_model_version(candidate.name, str(version), _card(candidate, promotion))
    client.set_registered_model_alias(candidate.name, promotion.alias, str(version))
    holder = _holder(client, candidate.name, promotion.alias)
    if holder != version:
        raise TrackingError(
            f"alias {promotion.alias} of {candidate.name} must point to version {version} but was moved to {holder} "
            "at the same time by someone else; run promote again"
        )


def _card(candidate: Candidate, promotion: Promotion) -> str:
    low, high = candidate.intervals[METRIC]
    return (
        f"An image classifier of {len(candidate.classes)} classes, trained on {candidate.data}.\n\n"
        f"Test balanced accuracy {candidate.metrics[METRIC]:.4f} (95 % interval {low:.4f} to {high:.4f}, "
        f"{candidate.test_pictures} pictures).\n\nDecision: {promotion.alias}, {promotion.reason}.\n\n"
        f"Run: {candidate.run_id}\n"
    )
