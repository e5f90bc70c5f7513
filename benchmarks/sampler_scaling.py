"""Measure the driver's cost as a search grows: ``python -m benchmarks.sampler_scaling [--trials 10000]``.

Drives the searcher and the scheduler through their interfaces, as Ray Tune does, on the real trial store with its
journal and with the callback that logs runs, whose operations are dropped. There are no workers: scores are random, so
the table says nothing about quality. Trials end in the order in which they would with ``--pending`` workers. A row
covers the last tenth of the trials up to it: CPU milliseconds per trial, CPU milliseconds of a proposal, and its 95th
percentile (also in wall time); and the memory and journal size at that point.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import numpy as np
import psutil
from ray.tune.schedulers import TrialScheduler

from benchmarks.record_curves import SPACE, preprocessings
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialReport
from tuning.recipe.schema import Recipe
from tuning.search.schedulers import build_scheduler
from tuning.search.searcher import StudySearcher
from tuning.search.space import SearchSpace
from tuning.search.strategy import SearchStrategy
from tuning.search.study import open_trial_store
from tuning.search.time_budget import TimeBudget
from tuning.search.trial_worker import TrialTask
from tuning.tracking.async_writer import AsyncWriter, Operation
from tuning.tracking.trial_logger import TrialLogger

SEARCH = {**SPACE, "trials": 100_000, "rerun_top_k": 0}  # never reaches its end
ROWS = (100, 1_000, 10_000)
RUNTIME_INFO = {"freeze_depth": 9, "freeze_block": "blocks.3.2", "blocks": 18, "trainable_parameters": 3124710}
METRICS = ("val_loss", "val_accuracy", "val_macro_f1", "train_loss", "epoch_s", "images_per_s", "lr")


class Row(NamedTuple):
    """The cost per trial at a number of trials."""

    trials: int
    cpu_ms: float
    ask_cpu_ms: float
    ask_cpu_ms_p95: float
    ask_ms_p95: float
    memory_mb: float
    journal_mb: float


class _Nowhere:
    """A writer that drops its operations."""

    def send(self, operation: Operation) -> None:
        """Drop it."""


class Simulation:
    """A search without workers: each step ends the oldest running trial and starts another."""

    def __init__(self, root: Path, recipe: Recipe, pending: int) -> None:
        space, known, paths = SearchSpace(recipe), preprocessings(recipe), SearchPaths(root)
        self.store = open_trial_store(
            paths, space, lambda settings: space.trial_config(settings, known), recipe.seed, 100, recipe.sampler
        )
        self._journal = paths.journal
        self._pending = pending
        self._scheduler: Any = build_scheduler(recipe.scheduler, recipe.max_epochs)
        strategy = SearchStrategy(recipe, self.store, TimeBudget(None, paths.elapsed), lambda: False, lambda: pending)
        callback = TrialLogger(cast(AsyncWriter, _Nowhere()))
        self._searcher = StudySearcher(self.store, [callback], self._task, strategy.next)
        self._running: deque[Any] = deque()
        self._random = random.Random(recipe.seed)
        self._began_mb = _memory_mb()
        self._proposal_s: list[tuple[float, float]] = []  # CPU, wall

    def _task(self, result: Any) -> TrialTask:  # noqa: ANN401
        return TrialTask(trial_uid=result.trial_uid, config=result.config, search_root=self._journal.parent, threads=1)

    def run(self, trials: int, rows: tuple[int, ...] = ROWS) -> Iterator[Row]:
        """Start ``trials`` trials and end all but the pending ones; yield a row at each number of ``rows``."""
        began = 0.0
        for number in range(1, trials + 1):
            if any(number == row - row // 10 + 1 for row in rows):
                began, self._proposal_s = time.process_time(), []
            self._start(f"ray-{number}")
            if len(self._running) >= self._pending:
                self._end(self._running.popleft())
            if number in rows:
                yield self._row(number, time.process_time() - began)

    def _start(self, name: str) -> None:
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        config = self._searcher.suggest(name)
        self._proposal_s.append((time.process_time() - cpu_s, time.perf_counter() - wall_s))
        trial = SimpleNamespace(trial_id=name, config=config)
        self._scheduler.on_trial_add(None, trial)
        self._running.append(trial)

    def _end(self, trial: Any) -> None:  # noqa: ANN401
        """Report increasing scores up to a random one, until the scheduler or the last epoch ends the trial."""
        config = TrialTask.from_json(trial.config["task"]).config
        reach, last = self._random.random(), config.fit.max_epochs
        for epoch in range(1, last + 1):
            score = reach * epoch / last
            metrics = {"val_balanced_accuracy": score, **dict.fromkeys(METRICS, 1 - score)}
            report = TrialReport(
                status="running", epoch=epoch, metrics=metrics, is_best=True, runtime_info=RUNTIME_INFO
            )
            result = {"epoch": epoch, "objective": score, "report": report.to_json()}
            if self._scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP or epoch == last:
                self._searcher.on_trial_complete(trial.trial_id, result)
                self._scheduler.on_trial_complete(None, trial, result)
                return
            self._searcher.on_trial_result(trial.trial_id, result)

    def _row(self, number: int, cpu_s: float) -> Row:
        cpu, wall = 1000 * np.array(self._proposal_s).T
        memory_mb = _memory_mb() - self._began_mb
        journal_mb = self._journal.stat().st_size / 2**20
        p95, wall_p95 = np.percentile(cpu, 95), np.percentile(wall, 95)
        return Row(number, 1000 * cpu_s / len(cpu), cpu.mean(), p95, wall_p95, memory_mb, journal_mb)


def _memory_mb() -> float:
    return float(psutil.Process().memory_info().rss) / 2**20


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=ROWS[-1])
    parser.add_argument("--pending", type=int, default=1_000)
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--scheduler", default="asha")
    arguments = parser.parse_args()
    recipe = Recipe.model_validate({**SEARCH, "sampler": arguments.sampler, "scheduler": arguments.scheduler})
    print(" ".join(Row._fields), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for row in Simulation(Path(folder), recipe, arguments.pending).run(arguments.trials):
            print(row.trials, *(f"{value:.1f}" for value in row[1:]), flush=True)


if __name__ == "__main__":
    main()
