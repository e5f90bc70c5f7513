"""Whether the sweep helps: ``python -m benchmarks.sweep [--seeds 10]`` replays searches on recorded learning curves.

Each search is the real one (ledger, sampler, ASHA), one trial at a time, with and without the sweep; a trial has the
curve and time of the recorded configuration that is nearest to what was asked for and not yet used in this search.
An entry of the feature store is paid for by the first trial that needs it. Printed is the regret: how far the best
validation score so far lies below the best of the table, as the mean over the seeds, by seconds of one core.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import TrialScheduler

from benchmarks.curves import FOLDER, SPACE, preprocessings
from tuning.domains import Setting
from tuning.recipe import Recipe
from tuning.search.ledger import Ledger, open_ledger
from tuning.search.paths import SearchPaths
from tuning.search.sampler import marks
from tuning.search.schedulers import build_scheduler
from tuning.space import SearchSpace
from tuning.trial import TrialReport

VAL = 180  # validation pictures: as many as the smaller of the recorded data sets has
TIMES_S = (5, 10, 20, 40, 80, 160, 320, 640)
LOGARITHMIC = ("lr", "weight_decay")
# A freeze line at the very end is another thing than one right before it: whole features are kept, nothing is trained.
FAR = 3.0

Row = dict[str, Any]


def distance(one: dict[str, Setting], other: dict[str, Setting]) -> float:
    """Return how different two configurations are: 1 for each choice, up to 1 for each number."""
    total = FAR * ((one["freeze_fraction"] == 1) != (other["freeze_fraction"] == 1))
    for name, value in one.items():
        theirs = other[name]
        if isinstance(value, float) and isinstance(theirs, float):
            logs = name in LOGARITHMIC
            total += abs(math.log10(value) - math.log10(theirs)) / 2 if logs else abs(value - theirs)
        else:
            total += value != theirs
    return total


def nearest(rows: list[Row], settings: dict[str, Setting]) -> Row:
    """Take the row nearest to the settings out of ``rows`` and return it."""
    return rows.pop(min(range(len(rows)), key=lambda at: distance(settings, rows[at]["settings"])))


def replay(table: list[Row], sweep: bool, seed: int, root: Path) -> Iterator[tuple[float, float]]:
    """Yield, after each epoch, the seconds so far and the best validation score so far."""
    recipe = Recipe.model_validate({**SPACE, "sweep": sweep, "seed": seed})
    space, known, rows = SearchSpace(recipe), preprocessings(recipe), list(table)
    paths = SearchPaths(root)
    ledger = open_ledger(paths, space, lambda settings: space.trial_config(settings, known), seed, VAL, recipe.sampler)
    scheduler: Any = build_scheduler(recipe.scheduler, recipe.max_epochs)
    made: set[str] = set()
    now_s, best = 0.0, 0.0
    while now_s < TIMES_S[-1] and rows:
        result = ledger.ask()
        row = nearest(rows, result.settings)
        now_s += sum(seconds for key, seconds in row["made_s"].items() if key not in made)
        made.update(row["made_s"])
        trial = SimpleNamespace(trial_id=result.trial_uid, config=marks(result))
        scheduler.on_trial_add(None, trial)
        for score in _run(ledger, scheduler, trial, row):
            now_s += row["own_s"] / len(row["val_loss"])
            best = max(best, score)
            yield now_s, best


def _run(ledger: Ledger, scheduler: Any, trial: SimpleNamespace, row: Row) -> Iterator[float]:  # noqa: ANN401
    """Report the row's epochs to the ledger until the scheduler stops the trial; yield each score."""
    best, status, result = -math.inf, "complete", {}
    for epoch, (score, loss) in enumerate(zip(row["val_balanced_accuracy"], row["val_loss"], strict=True), start=1):
        metrics = {"val_balanced_accuracy": score, "val_loss": loss}
        report = TrialReport(status="running", epoch=epoch, metrics=metrics, is_best=score > best)
        best = max(best, score)
        ledger.report(trial.trial_id, report)
        yield score
        result = {"epoch": epoch, "objective": best}
        if scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP:
            status = "pruned" if epoch < len(row["val_loss"]) else "complete"
            break
    scheduler.on_trial_complete(None, trial, result)
    ledger.finish(trial.trial_id, status, "")


def regrets(table: list[Row], sweep: bool, seed: int) -> list[float]:
    """Return the regret at each of ``TIMES_S``."""
    top = max(max(row["val_balanced_accuracy"]) for row in table)
    with tempfile.TemporaryDirectory() as folder:
        curve = list(replay(table, sweep, seed, Path(folder)))
    bests = [max((best for at_s, best in curve if at_s <= time_s), default=0.0) for time_s in TIMES_S]
    return [top - best for best in bests]


def main() -> None:
    """Print the mean regrets of every recorded table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    print("data configurations sweep " + " ".join(f"{time_s}s" for time_s in TIMES_S))
    for file in sorted(FOLDER.glob("*.jsonl")):
        table = [json.loads(line) for line in file.read_text().splitlines()]
        for sweep in (True, False):
            runs = [regrets(table, sweep, seed) for seed in range(arguments.seeds)]
            means = [statistics.mean(column) for column in zip(*runs, strict=True)]
            print(file.stem, len(table), "on" if sweep else "off", *(f"{mean:.4f}" for mean in means), flush=True)


if __name__ == "__main__":
    main()
