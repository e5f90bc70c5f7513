"""Measure what the sweep of linear probes gains: ``python -m benchmarks.sweep [--seeds 10]`` replays recorded curves.

Each search uses the real trial store, sampler and ASHA, one trial at a time, with and without the sweep. The sweep ends
as in a search whose trials have the seconds of the last column. A trial has the curve and time of the recorded
configuration that is nearest to its own and not yet used in this search. The first trial that needs a cache entry pays
for it. The output is the regret, the distance of the best validation score so far from the best of the table: the mean
over seeds, by seconds of one core.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.record_curves import SPACE, preprocessings
from benchmarks.replay import NUM_VAL_IMAGES, UNLIMITED, Row, nearest, play, space_of, tables, top
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialReport
from tuning.recipe.schema import Recipe
from tuning.search.schedulers import build_scheduler
from tuning.search.searcher import scheduler_flags
from tuning.search.strategy import SearchState, SearchStrategy
from tuning.search.study import open_trial_store

TIMES_S = (5, 10, 20, 40, 80, 160, 320, 640)


def replay(table: list[Row], sweep: bool, seed: int, root: Path) -> Iterator[tuple[float, float]]:
    """Yield, for each epoch, the seconds so far and the best validation score so far."""
    recipe = Recipe.model_validate({**SPACE, **UNLIMITED, "sweep": sweep, "seed": seed})
    space, known, rows, paths = space_of(table, recipe), preprocessings(recipe), list(table), SearchPaths(root)
    store = open_trial_store(paths, space, lambda settings: space.trial_config(settings, known), seed, recipe.sampler)
    strategy = SearchStrategy(recipe, space, NUM_VAL_IMAGES)
    scheduler: Any = build_scheduler(recipe.scheduler, recipe.max_epochs)
    cached: set[str] = set()
    now_s, best = 0.0, 0.0
    while now_s < TIMES_S[-1] and rows:
        step = strategy.next(SearchState(store.trials(), fraction_used=now_s / TIMES_S[-1]))
        if isinstance(step, str):
            return
        trial = store.start(step)
        row = nearest(rows, trial.settings)
        rows.remove(row)
        now_s += sum(seconds for key, seconds in row["made_s"].items() if key not in cached)
        cached.update(row["made_s"])
        reports: list[TrialReport] = []
        status = play(
            row, scheduler, SimpleNamespace(trial_id=trial.trial_uid, config=scheduler_flags(trial)), reports.append
        )
        for report in reports:
            store.report(trial.trial_uid, report)
            now_s += row["own_s"] / len(row["val_loss"])
            best = max(best, report.metrics["val_balanced_accuracy"])
            yield now_s, best
        now_s += 0 if reports else row["own_s"]
        store.finish(trial.trial_uid, status, row["reason"])


def regrets(table: list[Row], sweep: bool, seed: int) -> list[float]:
    """Return the regret at each of ``TIMES_S``."""
    with tempfile.TemporaryDirectory() as folder:
        curve = list(replay(table, sweep, seed, Path(folder)))
    bests = [max((best for at_s, best in curve if at_s <= time_s), default=0.0) for time_s in TIMES_S]
    return [top(table) - best for best in bests]


def main() -> None:
    """Print the mean regrets of every recorded table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    print("data configurations sweep " + " ".join(f"{time_s}s" for time_s in TIMES_S))
    for name, table in tables():
        for sweep in (True, False):
            runs = [regrets(table, sweep, seed) for seed in range(arguments.seeds)]
            means = [statistics.mean(column) for column in zip(*runs, strict=True)]
            print(name, len(table), "on" if sweep else "off", *(f"{mean:.4f}" for mean in means), flush=True)


if __name__ == "__main__":
    main()
