"""The real parts, started once for all tests of this folder: Ray, an MLflow database, programs of our own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.conftest import tiny_image
from tests.terminal import on_a_terminal, screen_of
from tuning.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
# A small network with random weights, small pictures: an epoch takes a tenth of a second. The steps are many and long,
# so that it is better than the floor after two epochs.
SMALL = {
    "backbone": "test_efficientnet",
    "weights": "none",
    "image_size": "32",
    "max_epochs": "2",
    "trials": "3",
    "sweep": "off",
    "rerun_top_k": "0",
    "batch_size": "4",
    "lr": "1e-2",
}


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One Ray for the whole session, started as a search starts it."""
    from tuning.search.ray_runtime import ray_running

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        with ray_running():
            yield


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables: making them takes seconds, a copy none."""
    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@dataclass(frozen=True)
class World:
    """A tracking database, a home and a folder of photos, and the client of the database."""

    folder: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/mlflow.db"

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    @property
    def photos(self) -> Path:
        return self.folder / "photos"

    def enter(self, patch: pytest.MonkeyPatch) -> None:
        """Make the environment and the working directory this world's."""
        patch.setenv("MLFLOW_TRACKING_URI", self.uri)
        patch.setenv("FREEZELINE_HOME", str(self.folder / "home"))
        patch.chdir(self.folder)


def make_world(folder: Path, database: Path) -> World:
    """Return a world in ``folder`` with three classes of twenty pictures."""
    shutil.copy(database, folder / "mlflow.db")
    for label, name in enumerate(("blue", "green", "red")):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(20):
            tiny_image(label, number, (40, 32)).save(folder / "photos" / name / f"{number:03}.png")
    return World(folder)


@pytest.fixture
def world(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A new world that the test is in."""
    made = make_world(tmp_path, empty_database)
    made.enter(monkeypatch)
    return made


def tune(world: World, **options: str) -> int:
    """Run the tune command with small settings; return its exit status."""
    settings = {"data": str(world.photos), **SMALL, **options}
    return main(["tune", *(word for name, text in settings.items() for word in (f"--{name}", text))])


def runs_of(client: MlflowClient, name: str = "photos") -> tuple[Run, list[Run]]:
    """Return the parent run of the newest search of an experiment, and its trials by their number."""
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])
    parent = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return parent, sorted(children, key=lambda run: int(run.data.params["trial"]))


def program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the test environment to its end, outside the project's folder."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        arguments,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@dataclass(frozen=True)
class Searched:
    """A world in which a search has ended, and what it wrote to its terminal."""

    world: World
    written: str

    @property
    def output(self) -> str:
        """What a person sees in the end."""
        return "\n".join(screen_of(self.written))

    @property
    def client(self) -> MlflowClient:
        return self.world.client


@pytest.fixture(scope="session")
def searched(ray_cluster: None, empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """One search in a terminal that tests look at; one that changes anything works on a copy of its world."""
    world = make_world(tmp_path_factory.mktemp("world"), empty_database)
    with pytest.MonkeyPatch.context() as patch, on_a_terminal() as written:
        world.enter(patch)
        assert tune(world, max_concurrent="1") == 0
    return Searched(world, "".join(written))
