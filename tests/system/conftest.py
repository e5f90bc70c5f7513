"""Real components shared by all system tests: Ray, an MLflow database, and one finished search."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.conftest import tiny_image
from tests.system.quick import make_searches_quick
from tests.terminal import on_a_terminal, screen_of
from tests.tuning.factories import recipe
from tuning.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
# A small network with random weights and small images: an epoch takes 0.1 s. A small batch size and a high learning
# rate make it better than the majority-class baseline after two epochs.
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
    "max_concurrent": "1",  # each worker imports torch, which takes longer than these trials
}


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Run one Ray for the whole test session, started as a search starts it."""
    from tuning.search.ray_runtime import RayRuntime

    with closing(RayRuntime(recipe())) as ray, ray.running():
        yield


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an MLflow database without runs: creating its tables takes seconds, copying the file does not."""
    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def quick_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the searches of this process quick, for tests that are not about packaging."""
    make_searches_quick(monkeypatch)


@dataclass(frozen=True)
class Workspace:
    """A folder with a tracking database, a Freezeline home and a data set."""

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

    def activate(self, patch: pytest.MonkeyPatch) -> None:
        """Set the environment variables and the working directory to this workspace."""
        patch.setenv("MLFLOW_TRACKING_URI", self.uri)
        patch.setenv("FREEZELINE_HOME", str(self.folder / "home"))
        patch.chdir(self.folder)


def make_workspace(folder: Path, database: Path) -> Workspace:
    """Return a workspace in ``folder`` with three classes of twenty images."""
    shutil.copy(database, folder / "mlflow.db")
    for label, name in enumerate(("blue", "green", "red")):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(20):
            tiny_image(label, number, (40, 32)).save(folder / "photos" / name / f"{number:03}.png")
    return Workspace(folder)


@pytest.fixture
def workspace(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Return a new, activated workspace."""
    new_workspace = make_workspace(tmp_path, empty_database)
    new_workspace.activate(monkeypatch)
    return new_workspace


def tune(workspace: Workspace, **options: str) -> int:
    """Run the tune command with small settings; return its exit status."""
    settings = {"data": str(workspace.photos), **SMALL, **options}
    return main(["tune", *(argument for name, text in settings.items() for argument in (f"--{name}", text))])


def runs_of(client: MlflowClient, name: str = "photos") -> tuple[Run, list[Run]]:
    """Return the parent run of the newest search of an experiment, and its trials' runs by number."""
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])
    parent = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return parent, sorted(children, key=lambda run: int(run.data.params["trial"]))


def run_program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the test environment in the current working directory."""
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
class FinishedSearch:
    """The workspace of a finished search and its raw terminal output."""

    workspace: Workspace
    terminal_output: str

    @property
    def screen(self) -> str:
        """The text on the terminal after the search."""
        return "\n".join(screen_of(self.terminal_output))

    @property
    def client(self) -> MlflowClient:
        return self.workspace.client


@pytest.fixture(scope="session")
def finished_search(
    ray_cluster: None, empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> FinishedSearch:
    """Run one search in a terminal for all tests; a test that changes anything must copy the workspace."""
    workspace = make_workspace(tmp_path_factory.mktemp("workspace"), empty_database)
    with pytest.MonkeyPatch.context() as patch, on_a_terminal() as chunks:
        workspace.activate(patch)
        assert tune(workspace) == 0
    return FinishedSearch(workspace, "".join(chunks))


@pytest.fixture
def copied_search(finished_search: FinishedSearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Return an activated copy of the workspace of the finished search."""
    copy = Workspace(shutil.copytree(finished_search.workspace.folder, tmp_path / "copy"))
    copy.activate(monkeypatch)
    return copy
