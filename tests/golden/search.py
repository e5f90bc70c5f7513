"""The epochs of a seeded search with one trial at a time, read from its MLflow database."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

METRICS = ("train_loss", "val_loss", "val_balanced_accuracy")


def epochs_of(client: MlflowClient, trials: list[Run]) -> list[dict[str, list[float]]]:
    """Return the metrics of every epoch of every trial."""
    return [
        {
            name: [round(point.value, 6) for point in client.get_metric_history(run.info.run_id, name)]
            for name in METRICS
        }
        for run in trials
    ]


def searched_epochs(folder: Path, patch: pytest.MonkeyPatch) -> list[dict[str, list[float]]]:
    """Run the search of the system tests in ``folder``; return the metrics of its epochs."""
    from tests.system.conftest import make_workspace, runs_of, tune

    database = folder / "empty.db"
    MlflowClient(f"sqlite:///{database}").search_experiments()
    (folder / "workspace").mkdir()
    workspace = make_workspace(folder / "workspace", database)
    workspace.activate(patch)
    assert tune(workspace) == 0
    return epochs_of(workspace.client, runs_of(workspace.client)[1])
