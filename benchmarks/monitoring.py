"""Monitoring of a model in use: ``python -m benchmarks.monitoring FOLDER OTHER --minutes 2 --rows FILE``.

A search on FOLDER packages a model. Days of ``DAY_IMAGES`` images each are then drawn from its test split: 30 quiet
ones, and five of each change: darkened and blurred images, images of OTHER, and one class for nine of ten images. A row
of FILE is a kind of day: alarms by day, and the images from the change to the first alarm of a window of the last
``WINDOW`` images, checked after every ``STEP`` images. Two more rows compare answers with and without recording:
requests a second and the 99th percentile of latency of ``mlflow models serve``, both servers in turn, and the memory of
a process before and after ``MEMORY_REQUESTS`` answers.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from PIL import Image, ImageEnhance, ImageFilter

from benchmarks.jsonl import append_row, read_rows
from benchmarks.searches import search
from data.load_dataset import load_dataset
from models.packaging.recording import VARIABLE
from tests.models.model_server import run_server
from tests.services import free_port
from tuning.monitoring.drift import compare
from tuning.monitoring.records import Records, read_records
from tuning.workflows.monitor import Monitored, load_monitored

if TYPE_CHECKING:
    from data.dataset.dataset import Dataset

SMALL = ("--image-size", "96", "--ensemble", "1")  # a fast network: it is not what is measured
NAME = "search"  # of the registered model
QUIET_DAYS, CHANGED_DAYS = 30, 5
DAY_IMAGES, WINDOW, STEP = 100, 100, 10
REQUESTS, ROUNDS = 1_200, 12
MEMORY_REQUESTS = 20_000


def darkened(image: Image.Image) -> Image.Image:
    """Return an image as of a dirty lens at dusk."""
    return ImageEnhance.Brightness(image).enhance(0.5).filter(ImageFilter.GaussianBlur(2))


class Answers:
    """The recorded answers of a model for a pool of images, from which days are drawn."""

    def __init__(self, uri: str, folder: Path) -> None:
        self._uri, self._folder = uri, folder

    def of(self, images: list[Any], monitored: Monitored) -> Records:
        """Return the records of the model for images, in their order."""
        import mlflow

        folder = self._folder / str(len(list(self._folder.glob("*"))))
        os.environ[VARIABLE] = str(folder)
        model = mlflow.pyfunc.load_model(self._uri)
        del os.environ[VARIABLE]
        for first in range(0, len(images), 32):
            model.predict(images[first : first + 32])
        model.unwrap_python_model().recorder.close()
        return read_records(folder, monitored.package_id, monitored.candidate.classes, 0, time.time())


def is_alarm(monitored: Monitored, window: Records) -> bool:
    """Return whether any property of a window drifts."""
    return any(test.is_drift for test in compare(monitored.reference, window, len(monitored.candidate.classes)))


def days(pool: Records, count: int, generator: np.random.Generator) -> Iterator[Records]:
    """Yield days drawn from a pool of answers."""
    for _ in range(count):
        yield pool.select(generator.integers(0, len(pool.times), DAY_IMAGES))


def join(first: Records, second: Records) -> Records:
    """Return the answers of both."""
    pairs = zip(Records._fields, first, second, strict=True)
    return first._replace(**{name: np.concatenate([a, b]) for name, a, b in pairs if a is not None and b is not None})


def delay(monitored: Monitored, quiet: Records, changed: Records, generator: np.random.Generator) -> int | None:
    """Return the number of changed images until the first alarm; None if there is none."""
    before = quiet.select(generator.integers(0, len(quiet.times), WINDOW))
    after = changed.select(generator.integers(0, len(changed.times), 3 * WINDOW))
    stream = join(before, after)
    for count in range(STEP, 3 * WINDOW + 1, STEP):
        if is_alarm(monitored, stream.select(np.arange(count, count + WINDOW))):
            return count
    return None


def month(monitored: Monitored, dataset: Dataset, other: Dataset, answers: Answers) -> Iterator[dict[str, Any]]:
    """Yield a row for each kind of day."""
    files = [dataset.root / sample.path for sample in dataset.split("test")]
    quiet = answers.of(files, monitored)
    labels = np.array([sample.label for sample in dataset.split("test")])
    rows = np.concatenate([np.flatnonzero(labels == 0)[:90], np.flatnonzero(labels != 0)[:10]])
    pools = {
        "darkened and blurred": answers.of([darkened(Image.open(file).convert("RGB")) for file in files], monitored),
        "other images": answers.of([other.root / each.path for each in other.split("test")], monitored),
        "shifted class mix": answers.of([files[row] for row in rows], monitored),
    }
    generator = np.random.default_rng(0)
    alarms = [is_alarm(monitored, day) for day in days(quiet, QUIET_DAYS, generator)]
    yield {"kind": "quiet", "days": QUIET_DAYS, "alarms": sum(alarms)}
    for kind, pool in pools.items():
        alarms = [is_alarm(monitored, day) for day in days(pool, CHANGED_DAYS, generator)]
        delays = [delay(monitored, quiet, pool, generator) for _ in range(10)]
        noticed = [each for each in delays if each is not None]
        yield {
            "kind": kind,
            "days": CHANGED_DAYS,
            "alarms": sum(alarms),
            "noticed": f"{len(noticed)} of {len(delays)}",
            "images_until_alarm": statistics.median(noticed) if noticed else None,
        }


@contextmanager
def server(uri: str, database: str, folder: Path, record: Path | None) -> Iterator[Callable[[bytes], float]]:
    """Context manager: ``mlflow models serve``; yields a function that sends a request and returns its seconds."""
    address = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri, "--env-manager", "local"]
    command += ["--port", address.rpartition(":")[2]]
    environment = {"MLFLOW_TRACKING_URI": database, **({VARIABLE: str(record)} if record else {})}
    folder.mkdir()
    with run_server(command, f"{address}/ping", folder, **environment):

        def send(body: bytes) -> float:
            headers = {"Content-Type": "application/json"}
            started_s = time.perf_counter()
            request = urllib.request.Request(f"{address}/invocations", body, headers)  # noqa: S310
            urllib.request.urlopen(request).read()  # noqa: S310
            return time.perf_counter() - started_s

        yield send


def serving(uri: str, database: str, files: list[Path], folder: Path) -> dict[str, Any]:
    """Return requests a second and p99 of both servers, in turn."""
    bodies = [json.dumps({"inputs": [base64.b64encode(file.read_bytes()).decode()]}).encode() for file in files[:50]]
    seconds: dict[str, list[float]] = {"off": [], "on": []}
    recording = server(uri, database, folder / "on", folder / "served")
    with server(uri, database, folder / "off", None) as off, recording as on:
        for send in (off, on):
            for body in bodies:
                send(body)
        for _ in range(ROUNDS):
            for name, send in (("off", off), ("on", on)):
                seconds[name] += [send(bodies[number % len(bodies)]) for number in range(REQUESTS // ROUNDS)]
    return {
        "kind": "serving",
        "requests": REQUESTS,
        **{f"per_second_{name}": round(len(each) / sum(each), 2) for name, each in seconds.items()},
        **{f"p50_ms_{name}": round(1000 * float(np.median(each)), 2) for name, each in seconds.items()},
        **{f"p99_ms_{name}": round(1000 * float(np.quantile(each, 0.99)), 2) for name, each in seconds.items()},
    }


def memory(uri: str, image: bytes, folder: Path) -> dict[str, Any]:
    """Return the memory of this process in MB before and after many recorded answers."""
    import mlflow

    os.environ[VARIABLE] = str(folder / "memory")
    model = mlflow.pyfunc.load_model(uri).unwrap_python_model()
    del os.environ[VARIABLE]
    import pandas as pd

    frame, process = pd.DataFrame({"image": [image]}), psutil.Process()
    for _ in range(500):
        model.predict(None, frame)
    before = process.memory_info().rss / 1e6
    for _ in range(MEMORY_REQUESTS):
        model.predict(None, frame)
    model.recorder.close()
    lines = sum(len(file.read_text().splitlines()) for file in (folder / "memory").glob("*.jsonl"))
    after = process.memory_info().rss / 1e6
    return {
        "kind": "memory",
        "answers": MEMORY_REQUESTS,
        "recorded": lines,
        "before_mb": round(before),
        "after_mb": round(after),
    }


def main() -> None:
    """Measure what FILE does not have, and print all rows."""
    import mlflow

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--rows", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        scratch = Path(text)
        found = search(str(options.folder), 0, scratch, "--minutes", str(options.minutes), *SMALL)
        database, uri = f"sqlite:///{scratch}/mlflow.db", f"models:/{NAME}/1"
        mlflow.set_tracking_uri(database)
        monitored = load_monitored(found.client, NAME)
        dataset, other = load_dataset(str(options.folder)), load_dataset(str(options.other))
        common = {"data": options.folder.name, "test_accuracy": round(found.parent.data.metrics["test_accuracy"], 4)}
        (scratch / "answers").mkdir()
        for row in month(monitored, dataset, other, Answers(uri, scratch / "answers")):
            append_row(options.rows, {**common, **row})
        files = [dataset.root / sample.path for sample in dataset.split("test")]
        append_row(options.rows, {**common, **serving(uri, database, files, scratch)})
        append_row(options.rows, {**common, **memory(uri, files[0].read_bytes(), scratch)})
    for row in read_rows(options.rows):
        print(row)


if __name__ == "__main__":
    main()
