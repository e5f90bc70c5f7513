"""Inject faults into searches: ``make faults``, or ``python -m benchmarks.faults [--times 5] [--kinds driver ...]``.

For each fault, several searches of six trials on generated images are hit once each, at a random moment while trials
run; if the command does not continue, ``resume`` does. Then every trial of the study is compared with its MLflow run.
The output for each fault is: trials lost (without an end in the study, or without a run), trials run twice (two runs of
one trial, or an epoch stored twice), points that differ from the study, runs left RUNNING, and the mean seconds from
the fault to the next finished epoch.

- ``worker``: kill -9 of a worker that runs a trial. ``driver``: kill -9 of the command. ``memory``: Ray's memory
  monitor kills a worker because another program uses the machine's memory. ``SIGINT`` and ``SIGTERM``: the user stops
  it.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import psutil
from PIL import Image

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from tuning.common.trial_record import TrialRecord

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("worker", "driver", "memory", "SIGINT", "SIGTERM")
OPTIONS = {
    "backbone": "test_efficientnet",
    "weights": "none",
    "image_size": "64",
    "sweep": "off",
    "scheduler": "none",
    "feature_cache": "off",
    "max_concurrent": "2",
    "rerun_top_k": "0",
    "batch_size": "16",
}
EPOCHS = 6 * 12  # of ``SearchProcess``
TIMEOUT_S = 600.0
HOG = "import sys, time; data = bytearray(int(sys.argv[1])); data[::4096] = b'x' * len(data[::4096]); time.sleep(600)"


class Damage(NamedTuple):
    """The effect of a fault on a finished search: everything but the seconds should be 0."""

    lost: int
    twice: int
    wrong_points: int
    running: int
    recovery_s: float


@dataclass(frozen=True)
class SearchProcess:
    """A search in its own folder; ``module`` is the program that runs its commands."""

    folder: Path
    module: str = "tuning"
    num_trials: int = 6
    max_epochs: int = 12

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the search's commands."""
        variables = {
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder}/mlflow.db",
            "FREEZELINE_HOME": f"{self.folder}/home",
        }
        return {**os.environ, **variables, "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}

    @property
    def log(self) -> Path:
        """The output of the search's commands."""
        return self.folder / "log"

    @property
    def client(self) -> MlflowClient:
        """The client of the tracking database."""
        from mlflow import MlflowClient

        return MlflowClient(self.environment["MLFLOW_TRACKING_URI"])

    @property
    def search_folder(self) -> Path:
        """The folder with the search's state."""
        (folder,) = (self.folder / "home" / "searches").iterdir()
        return folder

    def make_photos(self, count: int = 60) -> None:
        """Write three classes of noisy images that are easy to separate."""
        for label, name in enumerate(("blue", "green", "red")):
            (self.folder / "photos" / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.random.default_rng((label, number)).normal(100, 40, (64, 64, 3))
                pixels[:, :, label] += 60
                image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
                image.save(self.folder / "photos" / name / f"{number:03}.png")

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a Freezeline command."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", self.module, *arguments],
                cwd=self.folder,  # Ray's workers have it in their path
                env={**self.environment, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def tune(self, **environment: str) -> subprocess.Popen[bytes]:
        """Start the search."""
        counts = {"trials": str(self.num_trials), "max_epochs": str(self.max_epochs)}
        options = {"data": str(self.folder / "photos"), **counts, **OPTIONS}
        return self.start(
            "tune", *(argument for name, text in options.items() for argument in (f"--{name}", text)), **environment
        )

    def resume(self) -> int:
        """Resume the search; return the exit status."""
        return self.start("resume", "--run", self.search_folder.name).wait(TIMEOUT_S)

    def epochs(self) -> int:
        """Return the number of epochs in the journal."""
        journals = list((self.folder / "home").glob("searches/*/study.journal"))
        return sum(journal.read_bytes().count(b'"epoch:') for journal in journals)

    def trials(self) -> tuple[TrialRecord, ...]:
        """Return the trials of the study."""
        from optuna import load_study
        from optuna.storages import JournalStorage

        from tuning.search.journal_backend import SingleWriterJournalBackend
        from tuning.search.study import RECORD, STUDY_NAME, trial_from_attrs

        study = load_study(
            study_name=STUDY_NAME,
            storage=JournalStorage(SingleWriterJournalBackend(self.search_folder / "study.journal")),
        )
        return tuple(trial_from_attrs(trial.user_attrs) for trial in study.trials if RECORD in trial.user_attrs)


def wait_for_epochs(search: SearchProcess, count: int, process: subprocess.Popen[bytes]) -> float:
    """Wait until the journal holds ``count`` epochs, or the command has exited; return the time."""
    deadline = time.monotonic() + TIMEOUT_S
    while search.epochs() < count and process.poll() is None:
        if time.monotonic() > deadline:
            raise TimeoutError(search.log.read_text()[-2000:])
        time.sleep(0.05)
    return time.monotonic()


def workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return the worker processes of a command."""
    return [child for child in psutil.Process(process.pid).children(recursive=True) if "ImplicitFunc" in child.name()]


@contextmanager
def memory_taken() -> Iterator[None]:
    """Run another program that uses so much memory that Ray must kill a worker."""
    hog = subprocess.Popen([sys.executable, "-c", HOG, str(int(0.1 * psutil.virtual_memory().total))])
    try:
        yield
    finally:
        hog.kill()
        hog.wait()


def memory_limit() -> Mapping[str, str]:
    """Return an environment in which Ray's memory limit is slightly above the current usage."""
    used = psutil.virtual_memory()
    share = (used.total - used.available) / used.total + 0.1
    return {"RAY_memory_usage_threshold": f"{share:.3f}", "RAY_memory_monitor_refresh_ms": "100"}


def inject(kind: str, search: SearchProcess, process: subprocess.Popen[bytes]) -> bool:
    """Inject the fault; return whether the command continues without ``resume``."""
    if kind == "worker":
        random.choice(workers(process)).kill()
        return True
    if kind == "memory":
        with memory_taken():
            deadline = time.monotonic() + 60
            while "lost its workers" not in search.log.read_text() and time.monotonic() < deadline:
                time.sleep(0.1)
        return True
    if kind == "driver":
        process.kill()
    else:
        process.send_signal(getattr(signal, kind))
    process.wait(TIMEOUT_S)
    return False


def run_with_fault(kind: str, folder: Path, at_epoch: int) -> Damage:
    """Run a search, inject the fault after ``at_epoch`` epochs, and return its effect."""
    search = SearchProcess(folder)
    search.make_photos()
    process = search.tune(**(memory_limit() if kind == "memory" else {}))
    wait_for_epochs(search, at_epoch, process)
    continues = inject(kind, search, process)
    fault_s, epochs_before = time.monotonic(), search.epochs()
    if not continues:
        process = search.start("resume", "--run", search.search_folder.name)
    recovery_s = wait_for_epochs(search, epochs_before + 1, process) - fault_s
    if process.wait(TIMEOUT_S) != 0:
        raise RuntimeError(f"{kind}: exit status {process.returncode}: {search.log.read_text()[-3000:]}")
    return damage(search, recovery_s)


def damage(search: SearchProcess, recovery_s: float) -> Damage:
    """Compare the study of a finished search with its MLflow runs."""
    trials, client = search.trials(), search.client
    runs = client.search_runs(
        [experiment.experiment_id for experiment in client.search_experiments()], max_results=5000
    )
    by_uid: dict[str, list[str]] = {}
    for run in runs:
        if "freezeline.trial_uid" in run.data.tags:
            by_uid.setdefault(run.data.tags["freezeline.trial_uid"], []).append(run.info.run_id)
    wrong = 0
    for trial in trials:
        for run_id in by_uid.get(trial.trial_uid, [])[:1]:
            points = client.get_metric_history(run_id, "val_loss")
            stored = [(point.step, point.value) for point in sorted(points, key=lambda point: point.step)]
            expected = [(epoch, metrics["val_loss"]) for epoch, metrics in enumerate(trial.history, start=1)]
            wrong += len(set(stored) ^ set(expected)) + abs(len(stored) - len(expected))
    return Damage(
        lost=sum(trial.status == "running" or trial.trial_uid not in by_uid for trial in trials)
        + abs(search.num_trials - len(trials)),
        twice=sum(len(run_ids) - 1 for run_ids in by_uid.values()),
        wrong_points=wrong,
        running=sum(run.info.status == "RUNNING" for run in runs),
        recovery_s=recovery_s,
    )


def main() -> None:
    """Print a row for each fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    print(
        "| fault | times | trials lost | run twice | wrong points | left RUNNING | seconds to recover |\n|" + "---|" * 7
    )
    for kind in arguments.kinds:
        damages = []
        for _ in range(arguments.times):
            with tempfile.TemporaryDirectory() as folder:
                damages.append(run_with_fault(kind, Path(folder), random.randrange(2, EPOCHS - 12)))
        sums = [sum(column) for column in zip(*damages, strict=True)]
        counts = " | ".join(str(count) for count in sums[:-1])
        print(f"| {kind} | {len(damages)} | {counts} | {sums[-1] / len(damages):.0f} |", flush=True)


if __name__ == "__main__":
    main()
