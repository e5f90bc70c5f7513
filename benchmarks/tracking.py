"""Measure the cost of tracking: ``python -m benchmarks.tracking [--epochs 10] [--runs 10000]``.

Trials that wait ``EPOCH_S`` per epoch and then report ``METRICS`` metrics, 1 to 8 concurrently, log to a SQLite
database or a server (with PostgreSQL if it is installed) in three ways: through the async writer, by
``mlflow.log_metrics`` in the trial, and by Ray's MLflowLoggerCallback, whose calls run one after another, as on Ray's
loop. Trials only wait, so their delay and all CPU time of this process are due to tracking (a server's own is not
counted).

Then: the async writer while the server is unreachable; and how fast a store with many runs answers the queries of the
UI.
"""

from __future__ import annotations

import argparse
import os
import secrets
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

from tests.services import LOOPBACK, free_port, mlflow_server, postgres, postgres_tool, running
from tuning.common.environment import configure_environment
from tuning.tracking.async_writer import AsyncWriter
from tuning.tracking.operations import EndRun, LogEpoch, StartRun

EPOCH_S = 0.5  # of a linear probe on cached features; tracking takes a smaller share of longer epochs
METRICS = 12  # of a real trial
CONCURRENCY = (1, 2, 4, 8)

Report = Callable[[int, int], None]  # of a trial, after an epoch


class Cost(NamedTuple):
    """Delay and CPU time as shares of the trials' time, and points per second."""

    delay: float
    cpu: float
    points_per_s: float


@contextmanager
def async_writer(client: MlflowClient, experiment: str, folder: Path) -> Iterator[Report]:
    """Log through the async writer."""
    writer = AsyncWriter(client, experiment, {}, folder / f"{uuid.uuid4().hex}.jsonl")
    started: set[int] = set()

    def report(trial: int, step: int) -> None:
        uid = f"{experiment}-{trial}"
        if trial not in started:
            started.add(trial)
            writer.send(StartRun(uid, uid, {"lr": 0.1}, {}))
        writer.send(LogEpoch(uid, step, metrics(step)))

    yield report
    for trial in started:
        writer.send(EndRun(f"{experiment}-{trial}", "FINISHED", {}))
    writer.close()


@contextmanager
def in_trial(client: MlflowClient, experiment: str, _: Path) -> Iterator[Report]:
    """Log by ``mlflow.log_metrics`` in the trial."""
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
    """Log by Ray's callback, on one loop."""
    name = client.get_experiment(experiment).name
    logger_callback = MLflowLoggerCallback(mlflow.get_tracking_uri(), experiment_name=name)
    logger_callback.setup()
    loop = threading.Lock()
    trials: dict[int, Any] = {}

    def report(trial: int, step: int) -> None:
        with loop:
            if trial not in trials:
                trials[trial] = SimpleTrial(config={"lr": 0.1})
                logger_callback.log_trial_start(trials[trial])
            logger_callback.log_trial_result(step, trials[trial], {**metrics(step), "training_iteration": step})

    yield report
    for trial in trials.values():
        logger_callback.log_trial_end(trial)


class SimpleTrial(SimpleNamespace):
    """The part of Ray's trial that the callback uses, hashable by identity."""

    __hash__ = object.__hash__  # type: ignore[assignment]


LOGGERS = {"async writer": async_writer, "log_metrics in the trial": in_trial, "MLflowLoggerCallback": callback}


def metrics(step: int) -> dict[str, float]:
    """Return an epoch's metrics."""
    return {f"metric_{number}": step + number / 100 for number in range(METRICS)}


def cost(logger: Any, client: MlflowClient, concurrency: int, epochs: int) -> Cost:  # noqa: ANN401
    """Return the cost of a logger with a number of concurrent trials."""
    with tempfile.TemporaryDirectory() as folder:
        return run_trials(logger(client, client.create_experiment(uuid.uuid4().hex), Path(folder)), concurrency, epochs)


def run_trials(logging: Any, concurrency: int, epochs: int) -> Cost:  # noqa: ANN401
    """Run the trials with one logger and return its cost."""
    delay_s = [0.0] * concurrency

    def trial(number: int) -> None:
        for step in range(1, epochs + 1):
            time.sleep(EPOCH_S)
            start = time.perf_counter()
            report(number, step)
            delay_s[number] += time.perf_counter() - start

    start, start_cpu_s = time.perf_counter(), time.process_time()
    with logging as report, ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(trial, range(concurrency)))
    trials_s = concurrency * epochs * EPOCH_S
    cpu = (time.process_time() - start_cpu_s) / trials_s
    return Cost(sum(delay_s) / trials_s, cpu, concurrency * epochs * METRICS / (time.perf_counter() - start))


def points_per_s(client: MlflowClient, count: int = 20_000) -> float:
    """Return the points per second that the async writer delivers at full speed."""
    experiment = client.create_experiment(uuid.uuid4().hex)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with async_writer(client, experiment, Path(folder)) as report:
            for step in range(1, count // METRICS + 1):
                report(0, step)
        return count / (time.perf_counter() - start)


def fill(client: MlflowClient, runs: int) -> str:
    """Insert finished runs into the database of the client's store; return their experiment."""
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
        SqlTag: [{"run_uuid": uid, "key": "freezeline.trial_uid", "value": uid} for uid in uids],
        SqlParam: [{"run_uuid": uid, "key": f"p{at}", "value": "0.1"} for uid in uids for at in range(15)],
        SqlLatestMetric: points,
        SqlMetric: points,
    }  # fmt: skip
    with create_engine(os.environ["BENCHMARKED_DATABASE"]).begin() as connection:
        for table, filled in rows.items():
            connection.execute(insert(table), filled)
    return experiment


def ui_queries(client: MlflowClient, experiment: str) -> dict[str, float]:
    """Return the median of five durations of each of the UI's queries, in seconds."""
    best = client.search_runs([experiment], order_by=["metrics.metric_0 DESC"], max_results=100)

    def compare() -> None:
        for run in best[:16]:
            client.get_run(run.info.run_id)
            client.get_metric_history(run.info.run_id, "metric_0")

    queries: dict[str, Callable[[], Any]] = {
        "the table, 100 runs by a metric": lambda: client.search_runs(
            [experiment], order_by=["metrics.metric_0 DESC"], max_results=100
        ),
        "a trial by its trial_uid": lambda: client.search_runs(
            [experiment], f"tags.`freezeline.trial_uid` = '{best[0].data.tags['freezeline.trial_uid']}'"
        ),
        "the comparison of 16 runs": compare,
    }
    return {name: statistics.median(timed(query) for _ in range(5)) for name, query in queries.items()}


def timed(query: Callable[[], Any]) -> float:
    """Return the duration of a call in seconds."""
    start = time.perf_counter()
    query()
    return time.perf_counter() - start


@contextmanager
def stores() -> Iterator[dict[str, str]]:
    """Yield the tracking URI of each store: SQLite, and a server, with PostgreSQL if it is installed."""
    folder = Path(tempfile.mkdtemp(prefix="freezeline-benchmark-"))
    folder.chmod(0o711)
    with ExitStack() as stack:
        uris = {"SQLite": f"sqlite:///{folder}/direct.db"}
        port, database_port = free_port(), free_port()
        database, database_uri = "sqlite", f"sqlite:///{folder}/mlflow.db"
        if postgres_tool("initdb"):
            database, password = "postgres", secrets.token_hex(16)
            database_uri = f"postgresql+psycopg2://mlflow:{password}@{LOOPBACK}:{database_port}/mlflow"
            stack.enter_context(running(postgres(folder, database_port, "mlflow", "mlflow", password)))
        command = ["server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"]
        command += ["--artifacts-destination", str(folder / "artifacts")]
        stack.enter_context(running(mlflow_server(folder, port, command, {"MLFLOW_BACKEND_STORE_URI": database_uri})))
        uris[f"server on {database}"] = f"http://{LOOPBACK}:{port}"
        os.environ["BENCHMARKED_DATABASE"] = database_uri
        yield uris


def unreachable(concurrency: int, epochs: int) -> Cost:
    """Return the async writer's cost while its server is unreachable, without its final wait."""
    client = MlflowClient(f"http://{LOOPBACK}:{free_port()}")
    with tempfile.TemporaryDirectory() as folder:
        writer = AsyncWriter(client, "1", {}, Path(folder) / "outbox.jsonl")

        @contextmanager
        def reporting() -> Iterator[Report]:
            yield lambda trial, step: writer.send(LogEpoch(f"uid{trial}", step, metrics(step)))

        result = run_trials(reporting(), concurrency, epochs)
        writer.close()
    return result


def compare_loggers(store: str, uri: str, epochs: int) -> MlflowClient:
    """Print the cost of each logger on one store; return the store's client."""
    mlflow.set_tracking_uri(uri)
    client = MlflowClient(uri)
    points_per_s(client, METRICS)  # imports and connections are not measured
    for name, logger in LOGGERS.items():
        for concurrency in CONCURRENCY:
            print_row(f"{store}: {name}, {concurrency} concurrent", cost(logger, client, concurrency, epochs))
    print(f"{store}: async writer at full speed: {points_per_s(client):.0f} points/s", flush=True)
    return client


def print_row(label: str, result: Cost) -> None:
    """Print a row."""
    shares = f"delay {result.delay:.2%}, CPU {result.cpu:.2%}"
    print(f"{label}: {shares}, {result.points_per_s:.0f} points/s", flush=True)


def main() -> None:
    """Print a row for each store, logger and concurrency, then the outage and the queries of the UI."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--runs", type=int, default=10_000)
    arguments = parser.parse_args()
    configure_environment()
    with stores() as uris:
        for store, uri in uris.items():
            client = compare_loggers(store, uri, arguments.epochs)
        for concurrency in CONCURRENCY:
            print_row(
                f"server unreachable: async writer, {concurrency} concurrent",
                unreachable(concurrency, arguments.epochs),
            )
        experiment = fill(client, arguments.runs)
        for query, seconds in ui_queries(client, experiment).items():
            print(f"{store} with {arguments.runs} runs: {query}: {seconds:.2f} s", flush=True)


if __name__ == "__main__":
    main()
