"""Measure accuracy and duration of the default search: ``python -m benchmarks.searches [FOLDER ...] [--minutes 5]``.

Runs ``freezeline tune`` with its defaults on the demo, or on the given data folders, once per seed, sequentially,
each with its own tracking database and home, and prints a row for each search and their means.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ROOT = Path(__file__).resolve().parents[1]
METRICS = ("test_accuracy", "test_balanced_accuracy", "test_raw_pixel_accuracy", "best_val_balanced_accuracy")


class Search(NamedTuple):
    """A finished search: the duration of the command, the parent run and the trials' runs."""

    minutes: float
    client: MlflowClient
    parent: Run
    trials: list[Run]


def search(data: str, seed: int, folder: Path, *options: str, name: str = "search", checkout: Path = ROOT) -> Search:
    """Run one search in ``folder``, which holds its tracking database, home and output, with the code of a checkout."""
    from mlflow import MlflowClient

    folder.mkdir(parents=True, exist_ok=True)
    uri = f"sqlite:///{folder}/mlflow.db"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "FREEZELINE_HOME": str(folder / "home")}
    environment["PYTHONPATH"] = str(checkout)  # the command runs in the folder, because MLflow writes files there
    command = [
        sys.executable,
        "-m",
        "tuning",
        "tune",
        "--data",
        data if data == "demo" else str(Path(data).resolve()),
        "--seed",
        str(seed),
        "--name",
        name,
        *options,
    ]
    start = time.monotonic()
    with (folder / "log").open("w") as log:
        subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, check=True)
    minutes = (time.monotonic() - start) / 60
    return load_search(MlflowClient(uri), name, minutes)


def load_search(client: MlflowClient, name: str, minutes: float) -> Search:
    """Return the only search of the experiment ``name``."""
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None, name  # noqa: S101
    runs = client.search_runs([experiment.experiment_id])
    trials = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    return Search(minutes, client, parent, trials)


def main() -> None:
    """Print a row for each search, and the mean over the seeds of each data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="*", default=["demo"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", default="5")
    arguments = parser.parse_args()
    print("data seed minutes " + " ".join(METRICS), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for data in arguments.data:
            rows = []
            for seed in arguments.seeds:
                search_folder = Path(folder) / f"{Path(data).name}-{seed}"
                finished = search(data, seed, search_folder, "--minutes", arguments.minutes)
                rows.append(
                    {"minutes": finished.minutes, **{name: finished.parent.data.metrics[name] for name in METRICS}}
                )
                print(Path(data).name, seed, *(f"{value:.4f}" for value in rows[-1].values()), flush=True)
            means = {name: statistics.mean(row[name] for row in rows) for name in rows[0]}
            print(Path(data).name, "mean", *(f"{value:.4f}" for value in means.values()), flush=True)


if __name__ == "__main__":
    main()
