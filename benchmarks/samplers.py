"""Compare samplers: ``python -m benchmarks.samplers [--seeds 10]``, or with ``--functions``.

By default it replays searches on the recorded learning curves of real trials (``benchmarks/record_curves.py``), one
trial at a time; a trial has the curve of the recorded configuration that is nearest to its own. It compares
Freezeline's search, whose linear probes count as trials; the same without the sweep; Ray's OptunaSearch and ASHA with
their defaults (grace period of one epoch, reduction factor 4); and random search without a scheduler and with twice the
trials. The output is the regret by number of trials, the distance of the best validation score so far from the best of
the table: the mean over seeds and its standard error.

With ``--functions`` it compares Optuna's TPE, which models the whole history, with Freezeline's, which sees a subset of
it, on functions with a known minimum, up to ``--trials`` trials.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.record_curves import SPACE, preprocessings
from benchmarks.replay import NUM_VAL_IMAGES, UNLIMITED, Row, nearest, play, space_of, tables, top
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import ParamValue, TrialReport
from tuning.recipe.schema import Recipe
from tuning.search.samplers import build_sampler
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


def hartmann(trial: optuna.Trial) -> float:
    """Return Hartmann's function of six numbers; its minimum, -3.32237, is taken off."""
    weights = np.array([1.0, 1.2, 3.0, 3.2])
    scales = np.array(
        [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
    )
    centres = 1e-4 * np.array(
        [
            [1312, 1696, 5569, 124, 8283, 5886],
            [2329, 4135, 8307, 3736, 1004, 9991],
            [2348, 1451, 3522, 2883, 3047, 6650],
            [4047, 8828, 8732, 5743, 1091, 381],
        ]
    )
    point = np.array([trial.suggest_float(f"x{at}", 0, 1) for at in range(6)])
    return 3.32237 - float(weights @ np.exp(-(scales * (point - centres) ** 2).sum(axis=1)))


def ackley(trial: optuna.Trial) -> float:
    """Return Ackley's function of eight numbers, with its minimum, 0, away from the middle."""
    point = np.array([trial.suggest_float(f"x{at}", -10, 20) for at in range(8)])
    root, waves = math.sqrt((point**2).mean()), np.cos(2 * math.pi * point).mean()
    return float(20 - 20 * math.exp(-0.2 * root) + math.e - math.exp(waves))


def conditional(trial: optuna.Trial) -> float:
    """Return a sum of a choice's own parabola and two shared ones: a space like Freezeline's; its minimum is 0."""
    kind = trial.suggest_categorical("kind", ("a", "b", "c"))
    floor, best = {"a": (0.3, -3.0), "b": (0.1, -2.0), "c": (0.0, -2.5)}[kind]
    own = math.log10(trial.suggest_float(f"lr_{kind}", 1e-5, 1, log=True)) - best
    shared = [trial.suggest_float(name, 0, 1) - 0.3 for name in ("dropout", "freeze")]
    return floor + 0.2 * own**2 + sum(2 * part**2 for part in shared)


FUNCTIONS: Sequence[Callable[[optuna.Trial], float]] = (hartmann, ackley, conditional)


def print_functions(seeds: int, trials: int) -> None:
    """Print the regrets of Optuna's TPE and of Freezeline's on the known functions."""
    counts = [count for count in (100, 300, 1000, 3000) if count <= trials]
    print("function sampler " + " ".join(f"{count} trials" for count in counts), flush=True)
    for function in FUNCTIONS:
        for name, make in (("Optuna's", _optunas_tpe), ("Freezeline", lambda seed: build_sampler("tpe", seed))):
            runs = (minimise(function, make(seed), counts) for seed in range(seeds))
            print(function.__name__, name, *summary(runs), flush=True)


def minimise(
    function: Callable[[optuna.Trial], float], sampler: optuna.samplers.BaseSampler, counts: Sequence[int]
) -> list[float]:
    """Return the best value after each count of trials; it is maximised with its sign turned, as our searches are."""
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(lambda trial: -function(trial), n_trials=counts[-1])
    values = [-float(trial.value or 0.0) for trial in study.get_trials(deepcopy=False)]
    return [min(values[:count]) for count in counts]


def _optunas_tpe(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=5, group=True)


def main() -> None:
    """Print one of the two comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--functions", action="store_true")
    parser.add_argument("--trials", type=int, default=1000)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if arguments.functions:
        print_functions(arguments.seeds, arguments.trials)
    else:
        print_curves(arguments.seeds)


if __name__ == "__main__":
    main()
