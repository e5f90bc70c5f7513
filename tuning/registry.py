"""Carrying out a promotion in MLflow's model registry.

Aliases have no compare-and-swap, so one promotion at a time is decided and carried out under a lock of this
machine, and the alias is read again after it was written.
"""

from __future__ import annotations

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
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.pyfunc import PyFuncModel

    from data.dataset import Dataset

CANDIDATE_FILE = "candidate.json"
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
    """Register the candidate, decide on the test pictures of ``dataset``, move the alias; return its version."""
    (home() / "locks").mkdir(parents=True, exist_ok=True)
    with FileLock(home() / "locks" / f"promote-{candidate.name}.lock"):
        version = _register(client, candidate)
        promotion = decide(candidate, _champion(client, candidate, dataset, int(version.version)))
        _carry_out(client, candidate, int(version.version), promotion)
    return int(version.version), promotion


def _register(client: MlflowClient, candidate: Candidate) -> ModelVersion:
    """Return the candidate's version: the one that it already has, or a new one."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(candidate.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    for version in client.search_model_versions(f"name = '{candidate.name}'"):
        if version.source == candidate.model_uri or version.run_id == candidate.run_id:
            return version
    model_id = candidate.model_uri.removeprefix("models:/")
    return client.create_model_version(
        candidate.name, client.get_logged_model(model_id).artifact_location, candidate.run_id, model_id=model_id
    )


def _champion(client: MlflowClient, candidate: Candidate, dataset: Dataset, own_version: int) -> Champion | None:
    """Return today's champion, measured on the candidate's test pictures; None if there is none."""
    from mlflow.exceptions import MlflowException

    try:
        version = int(client.get_model_version_by_alias(candidate.name, CHAMPION).version)
    except MlflowException:
        return None
    if version == own_version:
        return None
    classes = _classes(client, candidate.name, version)
    if set(classes) != set(candidate.classes):
        return Champion(version=version, classes=classes, score=None)
    uri = f"models:/{candidate.name}/{version}"
    return Champion(version=version, classes=classes, score=_balanced_accuracy(uri, dataset))


def _balanced_accuracy(model_uri: str, dataset: Dataset) -> float:
    """Return the packaged model's mean recall over the classes on the test pictures."""
    from models.evaluate import score

    probabilities, labels = probabilities_of(load_model(model_uri), dataset, dataset.split("test"))
    return score(probabilities, labels, dataset.classes).balanced_accuracy


def _classes(client: MlflowClient, name: str, version: int) -> tuple[str, ...]:
    return tuple(json.loads(client.get_model_version(name, str(version)).tags.get("classes", "[]")))


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
    holder = int(client.get_model_version_by_alias(candidate.name, promotion.alias).version)
    if holder != version:
        raise TrackingError(
            f"alias {promotion.alias} of {candidate.name} must point to version {version} but was moved to {holder} "
            "at the same time by someone else; run promote again."
        )
    if promotion.alias == CHAMPION:
        _drop_alias(client, candidate.name, CHALLENGER, version)


def _drop_alias(client: MlflowClient, name: str, alias: str, version: int) -> None:
    """Take ``alias`` from ``version`` where it has it: a champion is nobody's challenger."""
    if client.get_registered_model(name).aliases.get(alias) == str(version):
        client.delete_registered_model_alias(name, alias)


def _card(candidate: Candidate, promotion: Promotion) -> str:
    low, high = candidate.intervals[METRIC]
    return (
        f"An image classifier of {len(candidate.classes)} classes, trained on {candidate.data}.\n\n"
        f"Test balanced accuracy {candidate.metrics[METRIC]:.4f} (95 % interval {low:.4f} to {high:.4f}, "
        f"{candidate.test_pictures} pictures).\n\nDecision: {promotion.alias}, {promotion.reason}.\n\n"
        f"Run: {candidate.run_id}\n"
    )
