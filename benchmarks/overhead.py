"""What the search adds to its trials: ``python -m benchmarks.overhead [--kinds short,long,real] [--naive on]``.

Three kinds of trials: 16 of 0.5 s and 16 of 5 s, that sleep through four epochs and write a file of weights at the end
of each; and 12 real ones on the demo's pictures, each of two epochs with everything frozen and no features kept, so
that none gains from what another computed. Each kind is run in three forms, two trials at once:

floor   the same trials in two plain processes
ours    the search's runner on the ledger with its sampler and its journal, Ray started as a search does, runs in MLflow
naive   a function trainable, OptunaSearch and MLflowLoggerCallback, all else as Ray Tune has it

Printed are the seconds from the start of the form to that of its first trial, from there to the end of the last trial,
and the latter against the floor's. A process imports torch when its first real trial starts, in every form. No form is
stopped early, so that all have the same trials.
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
from collections.abc import Callable, Iterator
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

AT_ONCE = 2
EPOCHS = 4
WEIGHTS = b"w" * 2_000_000  # bytes: as many as a fine-tuned end of a small network has
BACKBONE, SIZE = "tf_efficientnet_lite0", 48
# One optimizer: SGD's highest rates diverge, and each trial has to end.
REAL = {
    "optimizer": "adamw",
    "backbone": BACKBONE,
    "image_size": str(SIZE),
    "freeze_fraction": "1",
    "max_epochs": 2,
    "feature_cache": "off",
}
EVERY = {
    "data": "demo",
    "truncate": "0",
    "sweep": "off",
    "scheduler": "none",
    "max_concurrent": AT_ONCE,
    "rerun_top_k": 0,
}


class Kind(NamedTuple):
    """So many trials that sleep ``seconds`` each, or train where it is 0."""

    trials: int
    seconds: float


KINDS = {"short": Kind(16, 0.5), "long": Kind(16, 5.0), "real": Kind(12, 0.0)}


def recipe_of(kind: Kind) -> Recipe:
    """Return the recipe whose trials are the kind's."""
    return Recipe.model_validate({**REAL, **EVERY, "trials": kind.trials})


class Search(NamedTuple):
    """What all forms of a kind share: its folder, its recipe and the space."""

    paths: SearchPaths
    recipe: Recipe
    space: SearchSpace

    def configure(self, settings: dict[str, Any]) -> TrialConfig:
        """Return the configuration of one trial."""
        return self.space.trial_config(settings, {(BACKBONE, SIZE): preprocessing_for(BACKBONE, SIZE)})


@contextmanager
def timed(root: Path) -> Iterator[None]:
    """Within: a trial runs; when it began and ended is added to the form's times."""
    began = time.time()
    yield
    with (root / "times").open("a") as file:
        file.write(json.dumps([began, time.time()]) + "\n")


def sleep(task: TrialTask, tell: Callable[[TrialReport], None], seconds: float) -> None:
    """Do as a trial of so many seconds does: an epoch, its weights, its report."""
    began = time.monotonic()
    for epoch in range(1, EPOCHS + 1):
        time.sleep(max(0.0, began + seconds * epoch / EPOCHS - time.monotonic()))
        (task.search_root / f"{task.trial_uid}.weights").write_bytes(WEIGHTS)
        metrics = {"val_balanced_accuracy": epoch / EPOCHS, "val_loss": 1.0}
        tell(TrialReport(status="running", epoch=epoch, metrics=metrics, is_best=True))


def work(task: TrialTask, tell: Callable[[TrialReport], None], seconds: float) -> None:
    """Run one trial, a real one where ``seconds`` is 0, and note its times."""
    from tuning.search.trial_worker import train

    with timed(task.search_root):
        sleep(task, tell, seconds) if seconds else train(task, tell)


def plain(task: TrialTask, seconds: float) -> None:
    """Run one trial in a plain process."""
    work(task, lambda report: None, seconds)


def run_floor(search: Search, kind: Kind) -> None:
    """Run the trials in two plain processes."""
    import optuna

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    settings = [search.space.suggest(study.ask()) for _ in range(kind.trials)]
    tasks = [_task(search, search.configure(one)) for one in settings]
    with ProcessPoolExecutor(AT_ONCE, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(plain, tasks, [kind.seconds] * len(tasks)))


def _task(search: Search, config: TrialConfig) -> TrialTask:
    return TrialTask(trial_uid=uuid.uuid4().hex, config=config, search_root=search.paths.root, threads=1)


def trial_of(seconds: float) -> Callable[[dict[str, Any]], None]:
    """Return the Tune function of our trials, whose training is ``work``."""

    def run(config: dict[str, Any]) -> None:
        import tuning.search.trial_worker
        from benchmarks.overhead import work
        from tuning.search.trial_worker import run_trial

        real = tuning.search.trial_worker.train

        def measured(task: TrialTask, tell: Callable[[TrialReport], None]) -> None:
            tuning.search.trial_worker.train = real  # ``work`` calls it
            work(task, tell, seconds)

        tuning.search.trial_worker.train = measured  # type: ignore[assignment]
        run_trial(config)

    return run


def run_ours(search: Search, kind: Kind) -> None:
    """Run the trials as a search does."""
    import tuning.search.tune_runner
    from tuning.common.signals import SignalHandler
    from tuning.search.ray_runtime import RayRuntime
    from tuning.search.study import open_trial_store
    from tuning.search.time_budget import TimeBudget
    from tuning.tracking.connection import connect
    from tuning.tracking.parent_run import ParentRun
    from tuning.tracking.trial_logger import TrialLogger

    ray = RayRuntime(search.recipe)
    ray.start_async()
    parent = ParentRun.open(connect(), None, "overhead")
    ledger = open_trial_store(search.paths, search.space, search.configure, 0, 100, search.recipe.sampler)
    tuning.search.tune_runner.run_trial = trial_of(kind.seconds)
    with ray.running():
        listeners, clock = [TrialLogger(parent.writer)], TimeBudget(None, search.paths.elapsed)
        runner = tuning.search.tune_runner.TuneRunner(
            search.recipe, search.paths, ledger, listeners, SignalHandler(), clock, lambda sentence: None
        )
        runner.run()
    parent.end("FINISHED")
    parent.close()
    failed = [result.reason for result in ledger.trials() if result.status != "complete"]
    if failed:
        raise RuntimeError(f"every trial must end, but: {failed}")


def define(trial: Any) -> None:  # noqa: ANN401
    """Ask for a trial's settings as OptunaSearch has it; Tune pickles it, so it stands by itself."""
    SearchSpace(recipe_of(KINDS["short"])).suggest(trial)


def run_naive(search: Search, kind: Kind) -> None:
    """Run the trials in the form that Ray's, Optuna's and MLflow's own pages show."""
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.search.optuna import OptunaSearch

    def trainable(config: dict[str, Any]) -> None:
        from benchmarks.overhead import work

        settings = {**search.space.default_settings(), **config}
        task = TrialTask(
            trial_uid=uuid.uuid4().hex,
            config=search.configure(settings),
            search_root=search.paths.root,
            threads=1,
        )
        work(task, lambda report: tune.report({"val_balanced_accuracy": 0.5, **report.metrics}), kind.seconds)

    tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(define, metric="val_balanced_accuracy", mode="max", seed=0),
            num_samples=kind.trials,
            max_concurrent_trials=AT_ONCE,
        ),
        run_config=tune.RunConfig(
            storage_path=str(search.paths.root / "ray"),
            callbacks=[MLflowLoggerCallback(os.environ["MLFLOW_TRACKING_URI"], experiment_name="naive")],
        ),
    ).fit()


FORMS: dict[str, Callable[[Search, Kind], None]] = {"floor": run_floor, "ours": run_ours, "naive": run_naive}


def measure(form: str, name: str, root: Path) -> tuple[float, float]:
    """Run a form in a process of its own; return the seconds to its first trial and from there to the last's end."""
    root.mkdir(parents=True)
    kind = KINDS[name]
    recipe = recipe_of(kind)
    dataset = load_dataset(recipe.data)
    SearchPaths(root).write(recipe, dataset)
    if not kind.seconds:
        from data.loading.pixel_cache import pixel_cache

        pixel_cache(dataset, preprocessing_for(BACKBONE, SIZE))
    began = time.time()
    child = multiprocessing.get_context("spawn").Process(target=_run, args=(form, name, root))
    child.start()
    child.join()
    times = [json.loads(line) for line in (root / "times").read_text().splitlines()]
    if child.exitcode or len(times) != kind.trials:
        raise RuntimeError(f"{form} must run {kind.trials} trials, but ran {len(times)} (exit {child.exitcode})")
    first, last = min(start for start, _ in times), max(end for _, end in times)
    return first - began, last - first


def _run(form: str, name: str, root: Path) -> None:
    """Run a form in a process of its own, with this module by its name: a worker can't import ``__main__``'s."""
    overhead = importlib.import_module("benchmarks.overhead")
    kind = overhead.KINDS[name]
    recipe = overhead.recipe_of(kind)
    overhead.FORMS[form](overhead.Search(SearchPaths(root), recipe, SearchSpace(recipe)), kind)


def main() -> None:
    """Print a row for each kind and form."""
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
            for form in FORMS if arguments.naive == "on" else ("floor", "ours"):
                first_s, wall_s = measure(form, name, Path(folder) / name / form)
                floor_s = floor_s or wall_s
                print(name, form, f"{first_s:.1f} {wall_s:.2f} {wall_s / floor_s:.3f}", flush=True)


if __name__ == "__main__":
    main()
