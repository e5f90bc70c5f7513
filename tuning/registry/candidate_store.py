"""Candidates as artifacts of their runs: saved by a search or a training, loaded by ``promote``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from data.errors import TrackingError
from tuning.common.names import MODEL_ID_TAG
from tuning.common.promotion_types import Candidate
from tuning.registry.client import CHAMPION, ModelRegistry, retry_when_busy
from tuning.tracking.connection import check_available, check_database_exists, store_text
from tuning.tracking.dataset_input import dataset_digest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.pyfunc import PyFuncModel

    from data.dataset.dataset import Dataset


INTERNAL_FOLDER = "internal"  # of a run's artifacts; read by programs only
CANDIDATE_FILE = f"{INTERNAL_FOLDER}/candidate.json"  # the newest candidate of a run
CANDIDATES_FOLDER = f"{INTERNAL_FOLDER}/candidates"  # every candidate of a run, by the model id of its package
STORE_SCHEMES = ("models:/", "runs:/")  # of models in the tracking store
# models:/NAME/3, models:/NAME@champion, or short: NAME@3, NAME@champion, NAME (its champion).
VERSION_URI = re.compile(
    r"(?:models:/(?P<uri_name>[^/@]+)(?:/(?P<uri_version>\d+)|@(?P<uri_alias>[^/@]+))"
    r"|(?P<name>[^/@:]+)(?:@(?:(?P<version>\d+)|(?P<alias>[^/@]+)))?)"
)


def save_candidate(client: MlflowClient, candidate: Candidate) -> None:
    """Log the candidate on its run, where ``promote`` finds it."""
    for file in candidate_artifacts(candidate):
        client.log_text(candidate.run_id, candidate.to_json(), file)


def candidate_artifacts(candidate: Candidate) -> tuple[str, str]:
    """Return the artifact paths of a candidate on its run: one by its model id, and one for the run's newest."""
    return f"{CANDIDATES_FOLDER}/{candidate.model_id}.json", CANDIDATE_FILE


def reference_predictions_path(folder: Path) -> Path:
    """Return the file with a package's reference predictions, beside the package's ``folder``."""
    return folder.with_name(f"{folder.name}.reference_predictions.json")


def log_candidate_package(client: MlflowClient, folder: Path, run_id: str) -> str:
    """Log the package in ``folder`` and its reference predictions on a run; return the package's model URI."""
    from models.packaging.mlflow_model import log_package

    model_uri = log_package(folder, run_id)
    reference = reference_predictions_path(folder).read_text()
    client.log_text(run_id, reference, reference_predictions_artifact(model_uri.removeprefix("models:/")))
    return model_uri


def link_metrics(client: MlflowClient, candidate: Candidate, dataset: Dataset) -> None:
    """Link the run's metrics on the test images to the package and the data set.

    The points are those that are logged on the run anyway, so that the run has each of them once.
    """
    from mlflow.entities import Metric

    digest = dataset_digest(dataset)
    links = {"model_id": candidate.model_id, "dataset_name": dataset.name, "dataset_digest": digest}
    points = [
        Metric(name, value, candidate.evaluated_ms, 0, run_id=candidate.run_id, **links)
        for name, value in candidate.metrics.items()
    ]
    retry_when_busy(client.log_batch, candidate.run_id, metrics=points)


def reference_predictions_artifact(model_id: str) -> str:
    """Return the artifact path of a package's reference predictions on its run."""
    return f"{CANDIDATES_FOLDER}/{model_id}.reference_predictions.json"


def load_candidate(client: MlflowClient, run_id: str) -> Candidate:
    """Return the newest candidate of a search or a training.

    Raises:
        TrackingError: the run does not exist, or it packaged no model.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.get_run(run_id)
    except MlflowException:
        raise TrackingError(
            f"run must be the id of a search or a training, got {run_id!r}, which does not exist in {store_text()}; "
            "mlflow ui lists the runs"
        ) from None
    if CANDIDATE_FILE not in {file.path for file in client.list_artifacts(run_id, INTERNAL_FOLDER)}:
        raise TrackingError(
            f"run must have packaged a model, but {run_id} has no {CANDIDATE_FILE}; "
            "use the parent run of a search in which a trial finished"
        )
    return _read_candidate(run_id, CANDIDATE_FILE)


def load_candidate_of_version(client: MlflowClient, name: str, version: int) -> Candidate:
    """Return the candidate that was registered as a version.

    Raises:
        TrackingError: the version does not exist, or was not registered by a search or a training.
    """
    from mlflow.exceptions import MlflowException

    registry = ModelRegistry(client, name)
    registry.check_exists()
    registered = registry.version(version)
    model_id = registered.tags.get(MODEL_ID_TAG, "")
    try:
        return _read_candidate(str(registered.run_id), f"{CANDIDATES_FOLDER}/{model_id}.json")
    except (MlflowException, OSError):
        raise TrackingError(
            f"version must come from a search or a training, but the run of version {version} of {name} holds no "
            "candidate; use another version"
        ) from None


def load_candidate_of_uri(client: MlflowClient, model_uri: str) -> Candidate:
    """Return the candidate that was registered as the version that ``model_uri`` names (``find_version``).

    Raises:
        TrackingError: there is no such version, or it was not registered by a search or a training.
    """
    return load_candidate_of_version(client, *find_version(client, model_uri))


def find_version(client: MlflowClient, text: str, option: str = "model") -> tuple[str, int]:
    """Return the name and the number of a registered version, given as in ``VERSION_URI``.

    ``option`` is the option that messages name.

    Raises:
        TrackingError: the text names no version, or there is no such model or alias.
    """
    match = VERSION_URI.fullmatch(text)
    if match is None:
        raise TrackingError(
            f"{option} must be a registered version, NAME@champion, NAME@3 or models:/NAME/3, got {text!r}; "
            "mlflow ui lists the versions"
        )
    name, number = match["name"] or match["uri_name"], match["version"] or match["uri_version"]
    alias = match["alias"] or match["uri_alias"] or CHAMPION
    registry = ModelRegistry(client, name)
    registry.check_exists()
    version = int(number) if number else registry.version_of_alias(alias)
    if version is None:
        raise TrackingError(
            f"{option} must be a registered version, but {name} has no {alias}; give the number of a version, such as "
            f"{name}@1; mlflow ui lists them"
        )
    return name, version


def _read_candidate(run_id: str, file: str) -> Candidate:
    import mlflow

    try:
        return Candidate.from_json(mlflow.artifacts.load_text(f"runs:/{run_id}/{file}"))
    except ValidationError:
        raise TrackingError(
            f"candidate must be in the format of this version of freezeline, but {file} of run {run_id} is not; "
            "search or train again"
        ) from None


def load_model(model_uri: str) -> PyFuncModel:
    """Return the packaged model at ``model_uri``, loaded with pickle disabled by ``tuning.common.environment``.

    Raises:
        TrackingError: there is no model, it is not a packaged model of this project, or the tracking store is not
            available; a local database is not created.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    is_in_store = model_uri.startswith(STORE_SCHEMES)
    if is_in_store:
        check_available()
        check_database_exists()
    try:
        # Its warnings compare the installed packages, which takes a second, and would not be shown.
        with _without_bytecode():
            model: PyFuncModel = mlflow.pyfunc.load_model(model_uri, suppress_warnings=True)
        return model
    except (MlflowException, OSError) as error:
        place = f" from {store_text()}" if is_in_store else ""
        store = "; check the name, run in the folder of the search, or set MLFLOW_TRACKING_URI" if is_in_store else ""
        raise TrackingError(
            f"model must be a packaged model such as models:/NAME@champion, got {model_uri!r}{place}: "
            f"{error}{store or '; check the path'}"
        ) from error


@contextmanager
def _without_bytecode() -> Iterator[None]:
    """Context manager in which no ``__pycache__`` is written: a local store's package is loaded where it is stored."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
