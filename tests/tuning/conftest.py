"""Fixtures for the tests of tuning: a separate tracking database for each test, and a fake clock."""

from __future__ import annotations

import shutil
import socket
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from data.dataset.dataset import Dataset
from tests.tuning.factories import dataset
from tests.tuning.packaged_candidates import PackageCandidate, package_candidate

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an MLflow database without runs: creating its tables takes seconds, copying the file does not."""
    from mlflow import MlflowClient
    from mlflow.store.db import utils

    # MLflow loads its 70 migrations to compare the newest one with each database, most of the time of opening one.
    utils._get_latest_schema_revision = cache(utils._get_latest_schema_revision)
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def tracking(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URI of an empty tracking database, set in the environment; artifacts are written to ``tmp_path``."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


@pytest.fixture
def client(tracking: str) -> MlflowClient:
    """Return an MLflow client of the test's tracking database."""
    from mlflow import MlflowClient

    return MlflowClient(tracking)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the writer send without waiting for a batch, and retry without a pause."""
    monkeypatch.setattr("tuning.tracking.async_writer.BATCH_WAIT_S", 0.0)
    monkeypatch.setattr("tuning.tracking.async_writer.FIRST_PAUSE_S", 0.0)


@pytest.fixture
def closed_port() -> int:
    """Return a port of 127.0.0.1 without a listening process."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


class FakeClock:
    """A monotonic clock that only the test advances."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def pets(tmp_path: Path) -> Dataset:
    """Return a data set of cats and dogs; its files do not exist."""
    return dataset(tmp_path / "pets")


@pytest.fixture
def package(client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackageCandidate:
    """Return a function that packages a candidate, as ``packaged_candidates.package_candidate`` does."""
    return partial(package_candidate, client, tmp_path)


@pytest.fixture
def smoke_tested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the smoke test, which starts a process; return the list of model URIs that it was called with."""
    model_uris: list[str] = []
    monkeypatch.setattr("tuning.registry.promotion.verify_model_loads", lambda uri, *_: model_uris.append(uri))
    return model_uris
