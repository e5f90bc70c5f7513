"""Candidates as artifacts of their runs: saved by a search, loaded by promote."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from data.errors import TrackingError
from tuning.common.names import MODEL_ID_TAG
from tuning.common.promotion_types import Candidate
from tuning.registry.client import ModelRegistry
from tuning.registry.smoke_test import ReferencePredictions

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.pyfunc import PyFuncModel


CANDIDATE_FILE = "candidate.json"  # the last one of a run; of each package, see CANDIDATES
CANDIDATES_FOLDER = "candidates"


def save_candidate(client: MlflowClient, candidate: Candidate) -> None:
    """Keep the candidate on its run, for ``promote``."""
    for file in candidate_artifacts(candidate):
        client.log_text(candidate.run_id, candidate.to_json(), file)


def candidate_artifacts(candidate: Candidate) -> tuple[str, str]:
    """Return the artifacts that hold a candidate on its run: under its model's id, and as the run's newest."""
    return f"{CANDIDATES_FOLDER}/{candidate.model_id}.json", CANDIDATE_FILE


def reference_predictions_path(folder: Path) -> Path:
    """Return the file beside a package's folder that holds what the package must answer."""
    return folder.with_name(f"{folder.name}.proof.json")


def log_candidate_package(client: MlflowClient, folder: Path, run_id: str) -> str:
    """Log the package in ``folder``, and what it must answer, on a run; return the package's address."""
    from models.packaging.mlflow_model import log_package

    model_uri = log_package(folder, run_id)
    save_reference_predictions(
        client, run_id, model_uri, ReferencePredictions.from_json(reference_predictions_path(folder).read_text())
    )
    return model_uri


def save_reference_predictions(client: MlflowClient, run_id: str, model_uri: str, proof: ReferencePredictions) -> None:
    """Keep what a package must answer on its run."""
    client.log_text(run_id, proof.to_json(), reference_predictions_artifact(model_uri.removeprefix("models:/")))


def load_candidate(client: MlflowClient, run_id: str) -> Candidate:
    """Return the candidate that a search or a training left on its run.

    Raises:
        TrackingError: if there is no such run, or it packaged no model.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.get_run(run_id)
    except MlflowException:
        raise TrackingError(
            f"run must be the id of a search or a training, got {run_id!r}, which does not exist; mlflow ui shows them"
        ) from None
    if CANDIDATE_FILE not in {file.path for file in client.list_artifacts(run_id)}:
        raise TrackingError(
            f"run must have packaged a model, but {run_id} has none; "
            "give the parent run of a search that finished a trial."
        )
    return _read_candidate(run_id, CANDIDATE_FILE)


def load_candidate_of_version(client: MlflowClient, name: str, version: int) -> Candidate:
    """Return the candidate that a version was made of.

    Raises:
        TrackingError: if there is no such version, or it was registered by other means.
    """
    from mlflow.exceptions import MlflowException

    versions = ModelRegistry(client, name)
    versions.check_exists()
    model_id = versions.tags(version).get(MODEL_ID_TAG, "")
    try:
        run_id = str(client.get_model_version(name, str(version)).run_id)
        return _read_candidate(run_id, f"{CANDIDATES_FOLDER}/{model_id}.json")
    except (MlflowException, OSError):
        raise TrackingError(
            f"version {version} of {name} must be of a search or a training, but its run holds no candidate; "
            "give another version."
        ) from None


def _read_candidate(run_id: str, file: str) -> Candidate:
    import mlflow

    try:
        return Candidate.from_json(mlflow.artifacts.load_text(f"runs:/{run_id}/{file}"))
    except ValidationError:
        raise TrackingError(
            f"run must hold a candidate of this version of the project, but that of {run_id} can't be read; "
            "search or train again."
        ) from None


def reference_predictions_artifact(model_id: str) -> str:
    return f"{CANDIDATES_FOLDER}/{model_id}.proof.json"


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
            f"model must be a packaged model such as models:/NAME@champion, got {model_uri!r}: {error}; "
            "check the name, and MLFLOW_TRACKING_URI"
        ) from error
