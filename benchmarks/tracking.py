"""What tracking costs: ``python -m benchmarks.tracking [--epochs 10] [--runs 10000]``.

Trials that wait ``EPOCH_S`` an epoch and then report ``METRICS`` metrics, 1 to 8 at once, tell a SQLite database or a
server (PostgreSQL where it is installed) about it in three ways: through our writer, by ``mlflow.log_metrics`` in the
trial, and by Ray's MLflowLoggerCallback, whose calls come one after another, as on Ray's loop. Trials only wait, so all
that they are held up and all processor time of this process is tracking's (a server's own is not counted).

Then: our writer while the server is away; and how fast a store of many runs answers what the UI's pages ask for.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import mlflow
from mlflow import MlflowClient
from ray.air.integrations.mlflow import MLflowLoggerCallback

from server.local import parts
from server.processes import LOOPBACK, free_port, postgres_tool
from tuning.tracking.async_writer import AsyncWriter
from tuning.tracking.connection import configure_mlflow_env
from tuning.tracking.operations import EndRun, LogEpoch, StartRun

EPOCH_S = 0.5  # of a linear probe on cached features; a fine-tuned epoch takes longer, and tracking the less
METRICS = 12  # as many as a trial of ours reports
AT_ONCE = (1, 2, 4, 8)

Report = Callable[[int, int], None]  # of a trial, after an epoch


class Cost(NamedTuple):
    """As shares of the trials' time: how long they were held up, and a processor was busy; and points a second."""

    held_up: float
    busy: float
    points_per_s: float


@contextmanager
def ours(client: MlflowClient, experiment: str, folder: Path) -> Iterator[Report]:
    """Report through the writer."""
    writer = AsyncWriter(client, experiment, {}, folder / f"{uuid.uuid4().hex}.jsonl")
    seen: set[int] = set()

    def report(trial: int, step: int) -> None:
        uid = f"{experiment}-{trial}"
        if trial not in seen:
            seen.add(trial)
            writer.send(StartRun(uid, uid, {"lr": 0.1}, {}))
        writer.send(LogEpoch(uid, step, metrics(step)))

    yield report
    for trial in seen:
        writer.send(EndRun(f"{experiment}-{trial}", "FINISHED", {}))
    writer.close()


@contextmanager
def in_the_trial(client: MlflowClient, experiment: str, _: Path) -> Iterator[Report]:
    """Report by ``mlflow.log_metrics`` where the trial runs."""
    runs: dict[int, str] = {}

    def report(trial: int, step: int) -> None:
        if trial not in runs:
            runs[trial] = client.create_run(experiment).info.run_id
        mlflow.log_metrics(metrics(step), step=step, run_id=runs[trial], synchronous=True)

    yield report
    for run_id in runs.values():
        client.set_terminated(run_id)


@contextmanager
def callback(client: MlflowClient, experiment: str, _: Path) -> Iterator[Report]:
    """Report by Ray's callback, on one loop."""
    name = client.get_experiment(experiment).name
    listener = MLflowLoggerCallback(mlflow.get_tracking_uri(), experiment_name=name)
    listener.setup()
    loop = threading.Lock()
    trials: dict[int, Any] = {}

    def report(trial: int, step: int) -> None:
        with loop:
            if trial not in trials:
                trials[trial] = SimpleTrial(config={"lr": 0.1})
                listener.log_trial_start(trials[trial])
            listener.log_trial_result(step, trials[trial], {**metrics(step), "training_iteration": step})

    yield report
    for trial in trials.values():
        listener.log_trial_end(trial)


class SimpleTrial(SimpleNamespace):
    """As much of Ray's trial as the callback looks at; the same only to itself."""

    __hash__ = object.__hash__  # type: ignore[assignment]


WAYS = {"ours": ours, "log_metrics in the trial": in_the_trial, "MLflowLoggerCallback": callback}


def metrics(step: int) -> dict[str, float]:
    """Return an epoch's metrics."""
    return {f"metric_{number}": step + number / 100 for number in range(METRICS)}


def cost(way: Any, client: MlflowClient, at_once: int, epochs: int) -> Cost:  # noqa: ANN401
    """Return what a way of reporting costs with so many trials at once."""
    with tempfile.TemporaryDirectory() as folder:
        return spent(way(client, client.create_experiment(uuid.uuid4().hex), Path(folder)), at_once, epochs)


def spent(reporting: Any, at_once: int, epochs: int) -> Cost:  # noqa: ANN401
    """Run the trials with one way of reporting and return what it cost."""
    held_s = [0.0] * at_once

    def trial(number: int) -> None:
        for step in range(1, epochs + 1):
            time.sleep(EPOCH_S)
            began = time.perf_counter()
            report(number, step)
            held_s[number] += time.perf_counter() - began

    began, busy_s = time.perf_counter(), time.process_time()
    with reporting as report, ThreadPoolExecutor(at_once) as pool:
        list(pool.map(trial, range(at_once)))
    trials_s = at_once * epochs * EPOCH_S
    busy = (time.process_time() - busy_s) / trials_s
    return Cost(sum(held_s) / trials_s, busy, at_once * epochs * METRICS / (time.perf_counter() - began))


def most_points(client: MlflowClient, count: int = 20_000) -> float:
    """Return how many points a second our writer delivers that has them all at once."""
    experiment = client.create_experiment(uuid.uuid4().hex)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with ours(client, experiment, Path(folder)) as report:
            for step in range(1, count // METRICS + 1):
                report(0, step)
        return count / (time.perf_counter() - began)


def fill(client: MlflowClient, runs: int) -> str:
    """Write so many finished runs into the database behind the client's store; return their experiment."""
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric, SqlParam, SqlRun, SqlTag
    from sqlalchemy import create_engine, insert

    experiment = client.create_experiment(uuid.uuid4().hex)
    uids = [uuid.uuid4().hex for _ in range(runs)]
    point = {"timestamp": 1, "step": 1, "is_nan": False}
    points = [
        {"run_uuid": uid, "key": key, "value": value, **point} for uid in uids for key, value in metrics(1).items()
    ]
    rows: dict[Any, list[dict[str, Any]]] = {
        SqlRun: [
            {"run_uuid": uid, "name": uid[:8], "experiment_id": int(experiment), "status": "FINISHED",
             "start_time": at, "end_time": at, "lifecycle_stage": "active", "artifact_uri": "mlflow-artifacts:/x",
             "source_type": "LOCAL", "source_name": "", "source_version": "", "entry_point_name": "", "user_id": ""}
            for at, uid in enumerate(uids)
        ],
        SqlTag: [{"run_uuid": uid, "key": "trial_uid", "value": uid} for uid in uids],
        SqlParam: [{"run_uuid": uid, "key": f"p{at}", "value": "0.1"} for uid in uids for at in range(15)],
        SqlLatestMetric: points,
        SqlMetric: points,
    }  # fmt: skip
    with create_engine(os.environ["BENCHMARKED_DATABASE"]).begin() as connection:
        for table, filled in rows.items():
            connection.execute(insert(table), filled)
    return experiment


def pages(client: MlflowClient, experiment: str) -> dict[str, float]:
    """Return the seconds that the pages' questions take, as the median of five."""
    best = client.search_runs([experiment], order_by=["metrics.metric_0 DESC"], max_results=100)

    def compare() -> None:
        for run in best[:16]:
            client.get_run(run.info.run_id)
            client.get_metric_history(run.info.run_id, "metric_0")

    asked: dict[str, Callable[[], Any]] = {
        "the table, 100 runs by a metric": lambda: client.search_runs(
            [experiment], order_by=["metrics.metric_0 DESC"], max_results=100
        ),
        "a trial by its trial_uid": lambda: client.search_runs(
            [experiment], f"tags.`freezeline.trial_uid` = '{best[0].data.tags['trial_uid']}'"
        ),
        "the comparison of 16 runs": compare,
    }
    return {name: statistics.median(timed(ask) for _ in range(5)) for name, ask in asked.items()}


def timed(ask: Callable[[], Any]) -> float:
    """Return the seconds that a call takes."""
    began = time.perf_counter()
    ask()
    return time.perf_counter() - began


@contextmanager
def stores() -> Iterator[dict[str, str]]:
    """Yield the tracking URI of each store: SQLite, and a server on PostgreSQL where that is installed."""
    folder = Path(tempfile.mkdtemp(prefix="freezeline-benchmark-"))
    folder.chmod(0o711)
    with ExitStack() as stack:
        found = {"SQLite": f"sqlite:///{folder}/direct.db"}
        port = free_port()
        database = "postgres" if postgres_tool("initdb") else "sqlite"
        started = parts(folder, port, database)
        for part in started:
            stack.callback(part.stop)
            part.start()
        found[f"server on {database}"] = f"http://{LOOPBACK}:{port}"
        os.environ["BENCHMARKED_DATABASE"] = str(started[-1].environment["MLFLOW_BACKEND_STORE_URI"])
        yield found


def away(at_once: int, epochs: int) -> Cost:
    """Return what the writer costs while its server is away, its wait at the end left out."""
    client = MlflowClient(f"http://{LOOPBACK}:{free_port()}")
    with tempfile.TemporaryDirectory() as folder:
        writer = AsyncWriter(client, "1", {}, Path(folder) / "spool.jsonl")

        @contextmanager
        def reporting() -> Iterator[Report]:
            yield lambda trial, step: writer.send(LogEpoch(f"uid{trial}", step, metrics(step)))

        found = spent(reporting(), at_once, epochs)
        writer.close()
    return found


def compare_ways(store: str, uri: str, epochs: int) -> MlflowClient:
    """Print what each way costs on one store; return the store's client."""
    mlflow.set_tracking_uri(uri)
    client = MlflowClient(uri)
    most_points(client, METRICS)  # what is imported and opened once is nobody's cost
    for name, way in WAYS.items():
        for at_once in AT_ONCE:
            tell(f"{store}: {name}, {at_once} at once", cost(way, client, at_once, epochs))
    print(f"{store}: ours, all at once: {most_points(client):.0f} points/s", flush=True)
    return client


def tell(what: str, result: Cost) -> None:
    """Print a row."""
    shares = f"held up {result.held_up:.2%}, busy {result.busy:.2%}"
    print(f"{what}: {shares}, {result.points_per_s:.0f} points/s", flush=True)


def main() -> None:
    """Print a row for each store, way and number of trials at once, then the outage and the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--runs", type=int, default=10_000)
    asked = parser.parse_args()
    configure_mlflow_env()
    with stores() as found:
        for store, uri in found.items():
            client = compare_ways(store, uri, asked.epochs)
        for at_once in AT_ONCE:
            tell(f"server away: ours, {at_once} at once", away(at_once, asked.epochs))
        experiment = fill(client, asked.runs)
        for question, seconds in pages(client, experiment).items():
            print(f"{store} with {asked.runs} runs: {question}: {seconds:.2f} s", flush=True)


if __name__ == "__main__":
    main()
