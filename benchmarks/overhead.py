"""Measure what the search adds to its trials: ``python -m benchmarks.overhead [--kinds short,long,real] [--naive on]``.

Three kinds of trials: 16 of 0.5 s and 16 of 5 s, which sleep through four epochs and write a file of weights at the end
of each; and 12 real ones on the demo images, each of two epochs with everything frozen and without the feature cache,
so that no trial profits from another. Each kind runs in three versions, two concurrent trials each:

floor       the same trials in two plain processes
freezeline  the Tune runner with the trial store, sampler and journal, Ray started as in a search, runs in MLflow
naive       a function trainable, OptunaSearch and MLflowLoggerCallback, with Ray Tune's defaults

The output is the seconds from the start to the first trial, from there to the end of the last trial, and the latter
relative to the floor. In every version a process imports torch when its first real trial starts. No version stops
trials early, so all run the same trials.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from data.load_dataset import load_dataset
from models.backbones.factory import preprocessing_for
from models.trial_config import TrialConfig
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialReport
from tuning.recipe.schema import Recipe
from tuning.search.space import SearchSpace
from tuning.search.trial_worker import TrialTask

MAX_CONCURRENT = 2
EPOCHS = 4
WEIGHTS = b"w" * 2_000_000  # the size of the trained end of a small network
BACKBONE, SIZE = "tf_efficientnet_lite0", 48
# One optimizer: SGD diverges at its highest learning rates, and every trial must complete.
REAL = {
    "optimizer": "adamw",
    "backbone": BACKBONE,
    "image_size": str(SIZE),
    "freeze_fraction": "1",
    "max_epochs": 2,
    "feature_cache": "off",
}
SHARED = {
    "data": "demo",
    "truncate": "0",
    "sweep": "off",
    "scheduler": "none",
    "max_concurrent": MAX_CONCURRENT,
    "rerun_top_k": 0,
}


class Kind(NamedTuple):
    """A number of trials that sleep ``seconds`` each, or train if it is 0."""

    trials: int
    seconds: float


KINDS = {"short": Kind(16, 0.5), "long": Kind(16, 5.0), "real": Kind(12, 0.0)}


def recipe_of(kind: Kind) -> Recipe:
    """Return the recipe for a kind of trial."""
    return Recipe.model_validate({**REAL, **SHARED, "trials": kind.trials})


class Search(NamedTuple):
    """The folder, recipe and search space that all versions share."""

    paths: SearchPaths
    recipe: Recipe
    space: SearchSpace

    def make_config(self, settings: Mapping[str, Any]) -> TrialConfig:
        """Return the configuration of one trial."""
        return self.space.trial_config(settings, {(BACKBONE, SIZE): preprocessing_for(BACKBONE, SIZE)})


@contextmanager
def timed(root: Path) -> Iterator[None]:
    """Append the start and end time of the trial that runs in this context to the file of times."""
    start = time.time()
    yield
    with (root / "times").open("a") as file:
        file.write(json.dumps([start, time.time()]) + "\n")


def sleep(task: TrialTask, report: Callable[[TrialReport], None], seconds: float) -> None:
    """Imitate a trial of ``seconds``: sleep through each epoch, write its weights, report it."""
    start = time.monotonic()
    for epoch in range(1, EPOCHS + 1):
        time.sleep(max(0.0, start + seconds * epoch / EPOCHS - time.monotonic()))
        (task.search_root / f"{task.trial_uid}.weights").write_bytes(WEIGHTS)
        metrics = {"val_balanced_accuracy": epoch / EPOCHS, "val_loss": 1.0}
        report(TrialReport(status="running", epoch=epoch, metrics=metrics, is_best=True))


def work(task: TrialTask, report: Callable[[TrialReport], None], seconds: float) -> None:
    """Run one trial, a real one if ``seconds`` is 0, and record its times."""
    from tuning.search.trial_worker import train

    with timed(task.search_root):
        sleep(task, report, seconds) if seconds else train(task, report)


def plain(task: TrialTask, seconds: float) -> None:
    """Run one trial in a plain process."""
    work(task, lambda report: None, seconds)


def run_floor(search: Search, kind: Kind) -> None:
    """Run the trials in two plain processes."""
    import optuna

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    settings = [search.space.suggest(study.ask()) for _ in range(kind.trials)]
    tasks = [_task(search, search.make_config(params)) for params in settings]
    with ProcessPoolExecutor(MAX_CONCURRENT, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(plain, tasks, [kind.seconds] * len(tasks)))


def _task(search: Search, config: TrialConfig) -> TrialTask:
    return TrialTask(trial_uid=uuid.uuid4().hex, config=config, search_root=search.paths.root, threads=1)


def trial_of(seconds: float) -> Callable[[dict[str, Any]], None]:
    """Return the product's trainable with ``work`` in place of its training."""

    def run(config: dict[str, Any]) -> None:
        import tuning.search.trial_worker
        from benchmarks.overhead import work
        from tuning.search.trial_worker import run_trial

        real = tuning.search.trial_worker.train

        def measured(task: TrialTask, report: Callable[[TrialReport], None], on_batch: Callable[[], None]) -> None:
            tuning.search.trial_worker.train = real  # ``work`` calls it
            work(task, report, seconds)

        tuning.search.trial_worker.train = measured  # type: ignore[assignment]
        run_trial(config)

    return run


def run_freezeline(search: Search, kind: Kind) -> None:
    """Run the trials as a search does."""
    import tuning.search.tune_runner
    from tuning.common.environment import configure_environment
    from tuning.common.signals import SignalHandler
    from tuning.search.ray_runtime import RayRuntime
    from tuning.search.strategy import SearchStrategy
    from tuning.search.study import open_trial_store
    from tuning.search.time_budget import TimeBudget
    from tuning.tracking.connection import connect
    from tuning.tracking.parent_run import ParentRun
    from tuning.tracking.trial_logger import TrialLogger

    configure_environment()
    ray = RayRuntime(search.recipe)
    ray.start_async()
    parent = ParentRun.open(connect(), None, "overhead")
    store = open_trial_store(search.paths, search.space, search.make_config, 0, search.recipe.sampler)
    strategy = SearchStrategy(search.recipe, search.space, num_val_images=100)
    tuning.search.tune_runner.run_trial = trial_of(kind.seconds)  # type: ignore[attr-defined,assignment]
    with ray.running():
        data = {"name": "overhead", "digest": "0", "source_type": "local", "source": "{}"}
        callbacks = [TrialLogger(parent.writer, data, search.paths)]
        time_budget = TimeBudget(None, search.paths.elapsed, time.time())
        runner = tuning.search.tune_runner.TuneRunner(
            search.recipe, search.paths, store, strategy, callbacks, SignalHandler(), time_budget
        )
        runner.run()
    parent.end("FINISHED")
    parent.close()
    failed = [trial.reason for trial in store.trials() if trial.status != "complete"]
    if failed:
        raise RuntimeError(f"every trial must complete, but: {failed}")


def define(trial: Any) -> None:  # noqa: ANN401
    """Define the search space for OptunaSearch; Tune pickles this function, so it is at module level."""
    SearchSpace(recipe_of(KINDS["short"])).suggest(trial)


def run_naive(search: Search, kind: Kind) -> None:
    """Run the trials as the documentation of Ray, Optuna and MLflow shows."""
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.search.optuna import OptunaSearch

    def trainable(config: dict[str, Any]) -> None:
        from benchmarks.overhead import work

        settings = {**search.space.default_settings(), **config}
        task = TrialTask(
            trial_uid=uuid.uuid4().hex,
            config=search.make_config(settings),
            search_root=search.paths.root,
            threads=1,
        )
        work(task, lambda report: tune.report({"val_balanced_accuracy": 0.5, **report.metrics}), kind.seconds)

    tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(define, metric="val_balanced_accuracy", mode="max", seed=0),
            num_samples=kind.trials,
            max_concurrent_trials=MAX_CONCURRENT,
        ),
        run_config=tune.RunConfig(
            storage_path=str(search.paths.root / "ray"),
            callbacks=[MLflowLoggerCallback(os.environ["MLFLOW_TRACKING_URI"], experiment_name="naive")],
        ),
    ).fit()


VERSIONS: dict[str, Callable[[Search, Kind], None]] = {
    "floor": run_floor,
    "freezeline": run_freezeline,
    "naive": run_naive,
}


def measure(version: str, name: str, root: Path) -> tuple[float, float]:
    """Run a version in its own process; return the seconds to the first trial, and from there to the last end."""
    root.mkdir(parents=True)
    kind = KINDS[name]
    recipe = recipe_of(kind)
    dataset = load_dataset(recipe.data)
    SearchPaths(root).write(recipe, dataset)
    if not kind.seconds:
        from data.loading.pixel_cache import pixel_cache

        pixel_cache(dataset, preprocessing_for(BACKBONE, SIZE))
    start = time.time()
    child = multiprocessing.get_context("spawn").Process(target=_run, args=(version, name, root))
    child.start()
    child.join()
    times = [json.loads(line) for line in (root / "times").read_text().splitlines()]
    if child.exitcode or len(times) != kind.trials:
        raise RuntimeError(f"{version} must run {kind.trials} trials, but ran {len(times)} (exit {child.exitcode})")
    first, last = min(begin for begin, _ in times), max(end for _, end in times)
    return first - start, last - first


def _run(version: str, name: str, root: Path) -> None:
    """Run a version, with this module imported by name: a worker cannot import ``__main__``."""
    overhead = importlib.import_module("benchmarks.overhead")
    kind = overhead.KINDS[name]
    recipe = overhead.recipe_of(kind)
    overhead.VERSIONS[version](overhead.Search(SearchPaths(root), recipe, SearchSpace(recipe)), kind)


def main() -> None:
    """Print a row for each kind and version."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--naive", choices=("on", "off"), default="on")
    arguments = parser.parse_args()
    print("trials form first_s wall_s against_floor", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
        os.environ["FREEZELINE_HOME"] = f"{folder}/home"
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        for name in arguments.kinds.split(","):
            floor_s = 0.0
            for version in VERSIONS if arguments.naive == "on" else ("floor", "freezeline"):
                first_s, wall_s = measure(version, name, Path(folder) / name / version)
                floor_s = floor_s or wall_s
                print(name, version, f"{first_s:.1f} {wall_s:.2f} {wall_s / floor_s:.3f}", flush=True)


if __name__ == "__main__":
    main()
