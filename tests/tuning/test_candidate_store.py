"""Candidates on their runs: saving, loading, and the errors for runs, versions and models without one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mlflow.entities import Metric

from data.dataset.dataset import Dataset
from data.errors import TrackingError
from tests.tuning.factories import candidate, dataset
from tests.tuning.packaged_candidates import PackageCandidate
from tuning.registry.candidate_store import (
    CANDIDATE_FILE,
    link_metrics,
    load_candidate,
    load_candidate_of_uri,
    load_candidate_of_version,
    load_model,
    save_candidate,
)
from tuning.registry.promotion import promote

if TYPE_CHECKING:
    from mlflow import MlflowClient


def test_a_candidate_is_loaded_from_its_run(client: MlflowClient) -> None:
    saved = candidate(run_id=client.create_run("0").info.run_id)
    save_candidate(client, saved)
    assert load_candidate(client, saved.run_id) == saved


def test_linking_the_metrics_of_a_run_to_its_package_stores_no_point_twice(
    client: MlflowClient, tmp_path: Path
) -> None:
    run_id = client.create_run("0").info.run_id
    package = client.create_logged_model("0", name="model", source_run_id=run_id)
    packaged = candidate(run_id=run_id, model_uri=f"models:/{package.model_id}")
    points = [Metric(name, value, packaged.evaluated_ms, 0) for name, value in packaged.metrics.items()]
    client.log_batch(run_id, metrics=points)
    pets = dataset(tmp_path)
    for _ in range(2):
        link_metrics(client, packaged, pets)
    assert len(client.get_metric_history(run_id, "test_accuracy")) == 1
    linked = {metric.key: metric for metric in client.get_logged_model(package.model_id).metrics}
    assert {name: metric.value for name, metric in linked.items()} == packaged.metrics
    accuracy = linked["test_accuracy"]
    assert (accuracy.dataset_name, accuracy.dataset_digest) == ("pets", pets.samples_fingerprint)


def test_a_candidate_of_an_earlier_version_is_rejected(client: MlflowClient) -> None:
    run_id = client.create_run("0").info.run_id
    client.log_text(run_id, candidate().model_dump_json(exclude={"members"}), CANDIDATE_FILE)
    with pytest.raises(TrackingError, match=r"must be in the format of this version .* search or train again"):
        load_candidate(client, run_id)


@pytest.mark.parametrize("run_id", ["0" * 32, "no id", "models:/pets/1"])
def test_a_run_that_does_not_exist_is_rejected(client: MlflowClient, run_id: str) -> None:
    with pytest.raises(TrackingError, match=f"must be the id of a search or a training, got '{run_id}'"):
        load_candidate(client, run_id)


def test_a_run_without_a_package_is_rejected(client: MlflowClient) -> None:
    run_id = client.create_run("0").info.run_id
    with pytest.raises(TrackingError, match=rf"but {run_id} has no internal/candidate\.json"):
        load_candidate(client, run_id)


@pytest.mark.usefixtures("smoke_tested")
@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("pets", 7, "version must be a version of pets, got 7, which does not exist"),
        ("cows", 1, "got 'cows', which does not exist"),
    ],
)
def test_a_version_that_does_not_exist_is_rejected(
    client: MlflowClient, package: PackageCandidate, pets: Dataset, name: str, version: int, message: str
) -> None:
    promote(client, package(8), pets)
    with pytest.raises(TrackingError, match=message):
        load_candidate_of_version(client, name, version)


@pytest.mark.usefixtures("smoke_tested")
def test_the_uri_of_a_version_has_a_number_or_an_alias(
    client: MlflowClient, package: PackageCandidate, pets: Dataset
) -> None:
    packaged = package(8)
    promote(client, packaged, pets)
    for uri in ("models:/pets/1", "models:/pets@champion", "pets@1", "pets@champion", "pets"):
        assert load_candidate_of_uri(client, uri) == packaged
    for uri, message in {
        "models:/pets@challenger": "pets has no challenger; give the number of a version, such as pets@1",
        "models:/cows@champion": "got 'cows', which does not exist",
        "models:/pets/7": "got 7, which does not exist",
        packaged.model_uri: "must be a registered version, NAME@champion, NAME@3 or models:/NAME/3, got",
        "models:/pets": "got 'models:/pets'",
        "pets/1": "got 'pets/1'",
    }.items():
        with pytest.raises(TrackingError, match=message):
            load_candidate_of_uri(client, uri)


@pytest.mark.parametrize("uri", ["models:/pets@champion", "models:/nothing/1", "runs:/0/model", "missing", "models:/"])
def test_a_model_that_does_not_exist_is_rejected_with_the_store(uri: str, tracking: str) -> None:
    with pytest.raises(
        TrackingError, match=f"must be a packaged model such as models:/NAME@champion, got '{uri}'"
    ) as error:
        load_model(uri)
    assert (f"from {tracking}: " in str(error.value)) == ("/" in uri)
