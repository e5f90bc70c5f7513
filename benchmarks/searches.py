"""Measure whole searches: ``python -m benchmarks.searches [FOLDER ...] [--versions now before random]``.

Runs ``freezeline tune`` with its defaults on the demo, or on the given data folders, once per seed and version, one
after another, each with its own tracking database and home. Versions: ``now``; ``before``, the code of ``--before
CHECKOUT``; ``random``, the random sampler; ``no_sampling``, probes, the default and re-runs alone; ``no_cache``, no
feature cache and thus no probe sweep. ``--images`` takes a stratified subset for training and validation and tests on
up to 800 others; ``--hogs 1`` keeps a core busy with other work. With ``--rows FILE`` each search is a row of a JSON
Lines file, and rows that exist are not measured again.

Prints, for each search, its test scores, its duration, the seconds before its first epoch ended and after its last
trial ended, and how many proposals of the sampler ended or were pruned; then, for each pair of versions, the seconds
until both reached the same validation score: the highest that both reached.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.jsonl import append_row, read_rows
from tuning.common.names import OBJECTIVE_METRIC, ORIGIN_TAG, PARENT_RUN_TAG, STATUS_TAG, TRIAL_CONFIG_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ROOT = Path(__file__).resolve().parents[1]
METRICS = ("test_accuracy", "test_balanced_accuracy", "test_raw_pixel_accuracy", f"best_{OBJECTIVE_METRIC}")
SPREAD = ("lr", "optimizer", "lr_scheduler", "freeze_depth", "blocks")
VERSIONS = {
    "now": (),
    "before": (),
    "random": ("--sampler", "random"),
    "no_sampling": ("--trials", "1"),
    "no_cache": ("--feature_cache", "off"),
}
Curve = list[tuple[float, float]]
Row = dict[str, Any]


class Cell(NamedTuple):
    """What identifies a search; ``images`` is 0 for the whole data set, ``hogs`` the number of busy cores."""

    data: str
    images: int
    seed: int
    minutes: float
    hogs: int
    version: str

    @classmethod
    def of(cls, row: Row) -> Cell:
        """Return the cell of a row."""
        return cls(*(row[name] for name in cls._fields))


class Search(NamedTuple):
    """A finished search: when its command started and ended (Unix time), the parent run and the trials' runs."""

    started_s: float
    ended_s: float
    client: MlflowClient
    parent: Run
    trials: list[Run]

    @property
    def minutes(self) -> float:
        """The duration of the command."""
        return (self.ended_s - self.started_s) / 60


def search(data: str, seed: int, folder: Path, *options: str, name: str = "search", checkout: Path = ROOT) -> Search:
    """Run one search in ``folder``, which holds its tracking database, home and output, with the code of a checkout."""
    from mlflow import MlflowClient

    folder.mkdir(parents=True, exist_ok=True)
    uri = f"sqlite:///{folder}/mlflow.db"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "FREEZELINE_HOME": str(folder / "home")}
    environment["PYTHONPATH"] = str(checkout)  # the command runs in the folder, because MLflow writes files there
    images = data if data == "demo" else str(Path(data).resolve())
    arguments = ("--data", images, "--seed", str(seed), "--name", name, *options)
    started_s = time.time()
    with (folder / "log").open("w") as log:
        subprocess.run(
            [sys.executable, "-m", "tuning", "tune", *arguments],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
        )
    return load_search(MlflowClient(uri), name, started_s, time.time())


def load_search(client: MlflowClient, name: str, started_s: float = 0.0, ended_s: float = 0.0) -> Search:
    """Return the only search of the experiment ``name``."""
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None, name  # noqa: S101
    runs = client.search_runs([experiment.experiment_id])
    trials = [run for run in runs if PARENT_RUN_TAG in run.data.tags]
    (parent,) = (run for run in runs if PARENT_RUN_TAG not in run.data.tags)
    return Search(started_s, ended_s, client, parent, trials)


def curve(finished: Search) -> Curve:
    """Return (seconds since the command started, validation score) of every epoch of every trial, by time."""
    points = [
        point
        for trial in finished.trials
        for point in finished.client.get_metric_history(trial.info.run_id, OBJECTIVE_METRIC)
    ]
    return sorted((round(point.timestamp / 1000 - finished.started_s, 2), point.value) for point in points)


def _settings(trial: Run) -> Row:
    fit = json.loads(trial.data.tags[TRIAL_CONFIG_TAG])["fit"]
    return {name: fit[name] if name in fit else int(trial.data.params[name]) for name in SPREAD}


def result_of(finished: Search) -> Row:
    """Return the row of a search."""
    metrics, points = finished.parent.data.metrics, curve(finished)
    origins = Counter(trial.data.tags.get(ORIGIN_TAG, "") for trial in finished.trials)
    proposals = [trial for trial in finished.trials if trial.data.tags.get(ORIGIN_TAG) == "sampler"]
    ended = [_settings(trial) for trial in proposals if trial.data.tags.get(STATUS_TAG) in {"complete", "pruned"}]
    last_s = max(trial.info.end_time for trial in finished.trials) / 1000
    best_so_far = [max(score for _, score in points[: index + 1]) for index in range(len(points))]
    before = [0.0, *best_so_far]
    rises = [(at_s, best) for (at_s, _), best, last in zip(points, best_so_far, before, strict=False) if best > last]
    return {
        **{name: metrics[name] for name in METRICS},
        "took_minutes": finished.minutes,
        "before_first_epoch_s": points[0][0],
        "after_last_trial_s": finished.ended_s - last_s,
        "trials": dict(origins),
        "proposals_ended": len(ended),
        "proposals_that_train_a_block": sum(settings["freeze_depth"] < settings["blocks"] for settings in ended),
        "proposals": ended,
        "curve": rises,
    }


def seconds_to_same_score(first: Row, second: Row) -> tuple[float, float]:
    """Return the seconds after which each search reached the highest validation score that both reached."""
    score = min(max(value for _, value in row["curve"]) for row in (first, second))
    first_s, second_s = (next(at_s for at_s, value in row["curve"] if value >= score) for row in (first, second))
    return first_s, second_s


@contextmanager
def _busy_cores(count: int) -> Iterator[None]:
    """Context manager that keeps cores busy with other work."""
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def measure(cell: Cell, data: str, checkout: Path) -> Row:
    """Return the row of one search."""
    images, version = cell.images, cell.version
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if images:
            from benchmarks.subsets import copy_subset
            from data.load_dataset import load_dataset

            copy_subset(load_dataset(data), images, cell.seed, folder / "images")
            data = str(folder / "images")
        options = ("--minutes", str(cell.minutes), *VERSIONS[version])
        with _busy_cores(cell.hogs):
            found = search(data, cell.seed, folder / "search", *options, checkout=checkout)
        return {**cell._asdict(), **result_of(found)}


def _print_row(row: Row) -> None:
    scores = " ".join(f"{row[name]:.4f}" for name in METRICS)
    times = f"{row['took_minutes']:.2f} {row['before_first_epoch_s']:.1f} {row['after_last_trial_s']:.1f}"
    proposals = f"{row['proposals_ended']} {row['proposals_that_train_a_block']}"
    print(row["data"], row["images"], row["seed"], row["version"], scores, times, proposals, flush=True)


def _print_comparisons(rows: Iterable[Row]) -> None:
    found = {Cell.of(row): row for row in rows}
    for first, second in itertools.combinations(VERSIONS, 2):
        pairs = [
            (row, found[cell._replace(version=second)])
            for cell, row in found.items()
            if cell.version == first and cell._replace(version=second) in found
        ]
        if pairs:
            times = [seconds_to_same_score(*pair) for pair in pairs]
            ratios = [second_s / first_s for first_s, second_s in times]
            difference = statistics.fmean(one["test_accuracy"] - other["test_accuracy"] for one, other in pairs)
            print(
                f"{first} against {second} (n={len(pairs)}): test accuracy {difference:+.4f}, the same validation "
                f"score {statistics.geometric_mean(ratios):.2f} times sooner ({min(ratios):.2f} to {max(ratios):.2f})"
            )


def main() -> None:
    """Measure the missing searches and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=["demo"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--images", type=int, default=0, help="training and validation images; 0: the whole data set")
    parser.add_argument("--hogs", type=int, default=0, help="cores that other work keeps busy")
    parser.add_argument("--versions", nargs="+", choices=VERSIONS, default=["now"])
    parser.add_argument("--before", type=Path, help="checkout of an earlier version")
    parser.add_argument("--rows", type=Path, help="JSON Lines file of the results; it is continued")
    arguments = parser.parse_args()
    if "before" in arguments.versions and arguments.before is None:
        parser.error("--versions before needs --before CHECKOUT")
    rows = read_rows(arguments.rows)
    done = {Cell.of(row) for row in rows}
    for data, seed, version in itertools.product(arguments.data, arguments.seeds, arguments.versions):
        cell = Cell(Path(data).name, arguments.images, seed, arguments.minutes, arguments.hogs, version)
        if cell in done:
            continue
        checkout = arguments.before.resolve() if version == "before" else ROOT
        rows.append(measure(cell, data, checkout))
        append_row(arguments.rows, rows[-1])
        _print_row(rows[-1])
    columns = ("minutes", "before_first_epoch_s", "after_last_trial_s", "proposals", "train_a_block")
    print("data images seed version", *METRICS, *columns)
    for row in rows:
        _print_row(row)
    _print_comparisons(rows)


if __name__ == "__main__":
    main()
