"""What a search survives: ``make faults``, or ``python -m benchmarks.faults [--times 5] [--kinds driver worker ...]``.

For each fault, several searches of six trials on generated pictures are hit once each at a random moment while their
trials run; where the command does not go on by itself, ``resume`` does. Then every trial of the ledger is compared with
its MLflow run. Printed is, for each fault: trials lost (in the ledger without an end, or without a run), trials run
twice (two runs of one trial, or an epoch that is stored twice), points that differ from the ledger's, runs left
RUNNING, and the mean seconds from the fault to the next finished epoch.

- ``worker``: kill -9 of a worker in a trial. ``driver``: kill -9 of the command. ``memory``: Ray's memory monitor kills
  a worker, for another program has taken the machine's memory. ``SIGINT`` and ``SIGTERM``: the user ends it.
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
    "max_epochs": "12",
    "trials": "6",
    "sweep": "off",
    "scheduler": "none",
    "feature_cache": "off",
    "max_concurrent": "2",
    "rerun_top_k": "0",
    "batch_size": "16",
}
EPOCHS = 6 * 12
LONGEST_S = 600.0
HOG = "import sys, time; data = bytearray(int(sys.argv[1])); data[::4096] = b'x' * len(data[::4096]); time.sleep(600)"


class Damage(NamedTuple):
    """What a fault did to a search that has ended: all but the seconds should be 0."""

    lost: int
    twice: int
    wrong_points: int
    running: int
    back_s: float


@dataclass(frozen=True)
class Searched:
    """A search in a folder of its own."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its commands."""
        own = {"MLFLOW_TRACKING_URI": f"sqlite:///{self.folder}/mlflow.db", "FREEZELINE_HOME": f"{self.folder}/home"}
        return {**os.environ, **own, "MLFLOW_DISABLE_TELEMETRY": "true"}

    @property
    def log(self) -> Path:
        """What its commands printed."""
        return self.folder / "log"

    @property
    def client(self) -> MlflowClient:
        """Of its tracking database."""
        from mlflow import MlflowClient

        return MlflowClient(self.environment["MLFLOW_TRACKING_URI"])

    @property
    def search_folder(self) -> Path:
        """Where it keeps its state."""
        (found,) = (self.folder / "home" / "searches").iterdir()
        return found

    def make_photos(self, count: int = 60) -> None:
        """Write three classes of noisy pictures that are easily told apart."""
        for label, name in enumerate(("blue", "green", "red")):
            (self.folder / "photos" / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.random.default_rng((label, number)).normal(100, 40, (64, 64, 3))
                pixels[:, :, label] += 60
                picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
                picture.save(self.folder / "photos" / name / f"{number:03}.png")

    def start(self, *words: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a command of ours."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tuning", *words],
                cwd=ROOT,
                env={**self.environment, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def tune(self, **environment: str) -> subprocess.Popen[bytes]:
        """Start the search."""
        options = {"data": str(self.folder / "photos"), **OPTIONS}
        return self.start(
            "tune", *(word for name, text in options.items() for word in (f"--{name}", text)), **environment
        )

    def resume(self) -> int:
        """Go on with it; return the exit status."""
        return self.start("resume", "--run", self.search_folder.name).wait(LONGEST_S)

    def epochs(self) -> int:
        """Return how many epochs its journal holds."""
        journals = list((self.folder / "home").glob("searches/*/study.journal"))
        return sum(journal.read_bytes().count(b'"epoch:') for journal in journals)

    def results(self) -> tuple[TrialRecord, ...]:
        """Return its trials as the ledger has them."""
        from optuna import load_study
        from optuna.storages import JournalStorage

        from tuning.search.journal_backend import SingleWriterJournalBackend
        from tuning.search.study import RECORD, STUDY_NAME, trial_from_attrs

        study = load_study(
            study_name=STUDY_NAME,
            storage=JournalStorage(SingleWriterJournalBackend(self.search_folder / "study.journal")),
        )
        return tuple(trial_from_attrs(trial.user_attrs) for trial in study.trials if RECORD in trial.user_attrs)


def wait_for_epochs(searched: Searched, count: int, process: subprocess.Popen[bytes]) -> float:
    """Wait until the journal holds so many epochs, or the command has ended; return the time."""
    ends = time.monotonic() + LONGEST_S
    while searched.epochs() < count and process.poll() is None:
        if time.monotonic() > ends:
            raise TimeoutError(searched.log.read_text()[-2000:])
        time.sleep(0.05)
    return time.monotonic()


def workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return the processes that train trials of a command."""
    return [one for one in psutil.Process(process.pid).children(recursive=True) if "ImplicitFunc" in one.name()]


@contextmanager
def memory_taken() -> Iterator[None]:
    """Within: another program holds so much memory that Ray has to kill a worker."""
    hog = subprocess.Popen([sys.executable, "-c", HOG, str(int(0.1 * psutil.virtual_memory().total))])
    try:
        yield
    finally:
        hog.kill()
        hog.wait()


def memory_limit() -> Mapping[str, str]:
    """Return the environment in which Ray takes a little more memory than is used now for too much."""
    used = psutil.virtual_memory()
    share = (used.total - used.available) / used.total + 0.1
    return {"RAY_memory_usage_threshold": f"{share:.3f}", "RAY_memory_monitor_refresh_ms": "100"}


def strike(kind: str, searched: Searched, process: subprocess.Popen[bytes]) -> bool:
    """Do the fault; return whether the command goes on by itself."""
    if kind == "worker":
        random.choice(workers(process)).kill()
        return True
    if kind == "memory":
        with memory_taken():
            ends = time.monotonic() + 60
            while "lost its workers" not in searched.log.read_text() and time.monotonic() < ends:
                time.sleep(0.1)
        return True
    if kind == "driver":
        process.kill()
    else:
        process.send_signal(getattr(signal, kind))
    process.wait(LONGEST_S)
    return False


def suffer(kind: str, folder: Path, at_epoch: int) -> Damage:
    """Run a search, hit it once when it has ended so many epochs, and return what that did to it."""
    searched = Searched(folder)
    searched.make_photos()
    process = searched.tune(**(memory_limit() if kind == "memory" else {}))
    wait_for_epochs(searched, at_epoch, process)
    goes_on = strike(kind, searched, process)
    struck_s, before = time.monotonic(), searched.epochs()
    if not goes_on:
        process = searched.start("resume", "--run", searched.search_folder.name)
    back_s = wait_for_epochs(searched, before + 1, process) - struck_s
    if process.wait(LONGEST_S) != 0:
        raise RuntimeError(f"{kind}: exit status {process.returncode}: {searched.log.read_text()[-3000:]}")
    return damage(searched, back_s)


def damage(searched: Searched, back_s: float) -> Damage:
    """Compare the ledger of an ended search with its MLflow runs."""
    results, client = searched.results(), searched.client
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()], max_results=5000)
    by_uid: dict[str, list[str]] = {}
    for run in runs:
        if "freezeline.trial_uid" in run.data.tags:
            by_uid.setdefault(run.data.tags["freezeline.trial_uid"], []).append(run.info.run_id)
    wrong = 0
    for result in results:
        for run_id in by_uid.get(result.trial_uid, [])[:1]:
            points = client.get_metric_history(run_id, "val_loss")
            stored = [(point.step, point.value) for point in sorted(points, key=lambda point: point.step)]
            expected = [(epoch, one["val_loss"]) for epoch, one in enumerate(result.history, start=1)]
            wrong += len(set(stored) ^ set(expected)) + abs(len(stored) - len(expected))
    return Damage(
        lost=sum(result.status == "running" or result.trial_uid not in by_uid for result in results)
        + abs(int(OPTIONS["trials"]) - len(results)),
        twice=sum(len(found) - 1 for found in by_uid.values()),
        wrong_points=wrong,
        running=sum(run.info.status == "RUNNING" for run in runs),
        back_s=back_s,
    )


def main() -> None:
    """Print a row for each fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    print("| fault | times | trials lost | run twice | wrong points | left RUNNING | s to be back |\n|" + "---|" * 7)
    for kind in arguments.kinds:
        suffered = []
        for _ in range(arguments.times):
            with tempfile.TemporaryDirectory() as folder:
                suffered.append(suffer(kind, Path(folder), random.randrange(2, EPOCHS - 12)))
        sums = [sum(column) for column in zip(*suffered, strict=True)]
        counts = " | ".join(str(count) for count in sums[:-1])
        print(f"| {kind} | {len(suffered)} | {counts} | {sums[-1] / len(suffered):.0f} |", flush=True)


if __name__ == "__main__":
    main()
