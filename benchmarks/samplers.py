"""Compare samplers: ``python -m benchmarks.samplers [--seeds 10]``.

It replays searches on the recorded learning curves of real trials (``benchmarks/record_curves.py``), one
trial at a time; a trial has the curve of the recorded configuration that is nearest to its own. It compares
Freezeline's search, whose linear probes count as trials; the same without the sweep; Ray's OptunaSearch and ASHA with
their defaults (grace period of one epoch, reduction factor 4); and random search without a scheduler and with twice the
trials. The output is the regret by number of trials, the distance of the best validation score so far from the best of
the table: the mean over seeds and its standard error.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.record_curves import SPACE, preprocessings
from benchmarks.replay import NUM_VAL_IMAGES, UNLIMITED, Row, nearest, play, space_of, tables, top
from tuning.common.option_types import ParamValue
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialReport
from tuning.recipe.schema import Recipe
from tuning.search.schedulers import build_scheduler
from tuning.search.searcher import scheduler_flags
from tuning.search.strategy import SearchState, SearchStrategy
from tuning.search.study import open_trial_store

COUNTS = (4, 8, 16, 24, 32, 48)  # trials at which the regret is printed
METHODS = {
    "Freezeline": {},
    "Freezeline, no sweep": {"sweep": "off"},
    "OptunaSearch + ASHA": None,
    "random, twice the trials": {"sweep": "off", "sampler": "random", "scheduler": "none"},
}
Scores = Iterator[float]  # the best validation score of each trial


def freezeline(table: list[Row], options: dict[str, str], seed: int, root: Path) -> Scores:
    """Search as Freezeline does, with these options of the recipe."""
    recipe = Recipe.model_validate({**SPACE, **UNLIMITED, **options, "seed": seed})
    space, known, paths = space_of(table, recipe), preprocessings(recipe), SearchPaths(root)
    store = open_trial_store(paths, space, lambda settings: space.trial_config(settings, known), seed, recipe.sampler)
    strategy = SearchStrategy(recipe, space, NUM_VAL_IMAGES)
    scheduler: Any = build_scheduler(recipe.scheduler, recipe.max_epochs)
    while True:
        step = strategy.next(SearchState(store.trials()))
        if isinstance(step, str):
            return
        trial = store.start(step)
        tune_trial = SimpleNamespace(trial_id=trial.trial_uid, config=scheduler_flags(trial))

        def on_report(report: TrialReport, uid: str = trial.trial_uid) -> None:
            store.report(uid, report)

        row = nearest(table, trial.settings)
        status = play(row, scheduler, tune_trial, on_report)
        yield store.finish(trial.trial_uid, status, row["reason"]).score or 0.0


def stock(table: list[Row], seed: int) -> Scores:
    """Search with Ray Tune's OptunaSearch and ASHA on the same space, with their defaults."""
    recipe = Recipe.model_validate(SPACE)
    space, suggested = space_of(table, recipe), list[dict[str, ParamValue]]()
    searcher = OptunaSearch(
        lambda trial: suggested.append(space.suggest(trial)), metric="objective", mode="max", seed=seed
    )
    scheduler: Any = ASHAScheduler(time_attr="epoch", metric="objective", mode="max", max_t=recipe.max_epochs)
    while True:
        name = str(len(suggested))
        searcher.suggest(name)
        scores: list[float] = []

        def on_report(report: TrialReport, name: str = name, scores: list[float] = scores) -> None:
            scores.append(report.metrics["val_balanced_accuracy"])
            searcher.on_trial_result(name, {"objective": max(scores), "training_iteration": report.epoch})

        status = play(nearest(table, suggested[-1]), scheduler, SimpleNamespace(trial_id=name, config={}), on_report)
        last = {"objective": max(scores, default=0.0), "training_iteration": len(scores)}
        searcher.on_trial_complete(name, last, error=status == "failed")
        yield last["objective"]


def regrets(table: list[Row], method: str, seed: int) -> list[float]:
    """Return a method's regret after each of ``COUNTS`` trials; random search gets twice the trials."""
    options, times = METHODS[method], 2 if method.startswith("random") else 1
    with tempfile.TemporaryDirectory() as folder:
        scores = stock(table, seed) if options is None else freezeline(table, options, seed, Path(folder))
        seen = [score for score, _ in zip(scores, range(times * COUNTS[-1]), strict=False)]
    return [top(table) - max(seen[: times * count]) for count in COUNTS]


def print_curves(seeds: int) -> None:
    """Print the regrets of every method on every recorded table."""
    print("data configurations method " + " ".join(f"{count} trials" for count in COUNTS), flush=True)
    for name, table in tables():
        for method in METHODS:
            runs = (regrets(table, method, seed) for seed in range(seeds))
            print(name, len(table), f"'{method}'", *summary(runs), flush=True)


def summary(runs: Iterator[list[float]]) -> list[str]:
    """Return the mean of each column, and its standard error."""
    columns = zip(*runs, strict=True)
    return [f"{statistics.mean(one):.4f}±{statistics.stdev(one) / math.sqrt(len(one)):.4f}" for one in columns]


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print_curves(parser.parse_args().seeds)


if __name__ == "__main__":
    main()
