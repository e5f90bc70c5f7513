"""Recorded learning curves (``benchmarks/record_curves.py``) in place of training: what a search would have seen."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import TrialScheduler

from benchmarks.record_curves import FOLDER
from tuning.common.trial_record import ParamValue, TrialReport
from tuning.recipe.schema import Recipe
from tuning.search.space import SearchSpace
from tuning.search.study import TrialStatus

VAL = 180  # validation pictures: as many as the smaller of the recorded data sets has
LOGARITHMIC = ("lr", "weight_decay")
# A freeze line at the very end is another thing than one right before it: whole features are kept, nothing is trained.
FAR = 3.0

Row = dict[str, Any]


def tables() -> Iterator[tuple[str, list[Row]]]:
    """Yield the name and the rows of every recorded table."""
    for file in sorted(FOLDER.glob("*.jsonl")):
        yield file.stem, [json.loads(line) for line in file.read_text().splitlines()]


def space_of(table: Sequence[Row], recipe: Recipe) -> SearchSpace:
    """Return the space that the table's configurations are from: class balance is searched where it was recorded."""
    balanced = any(row["settings"]["balance"] != "none" for row in table)
    return SearchSpace(recipe, imbalance_ratio=math.inf if balanced else 1.0)


def best(table: Sequence[Row]) -> Row:
    """Return the row with the best validation score of a table."""
    return max(table, key=lambda row: max(row["val_balanced_accuracy"], default=0.0))


def top(table: Sequence[Row]) -> float:
    """Return the best validation score of a table: where the regret is 0."""
    return float(max(best(table)["val_balanced_accuracy"]))


def distance(one: dict[str, ParamValue], other: dict[str, ParamValue]) -> float:
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


def nearest(rows: Sequence[Row], settings: dict[str, ParamValue]) -> Row:
    """Return the row that is nearest to the settings."""
    return min(rows, key=lambda row: distance(settings, row["settings"]))


def play(row: Row, scheduler: Any, trial: SimpleNamespace, hear: Callable[[TrialReport], None]) -> TrialStatus:  # noqa: ANN401
    """Tell the row's epochs to ``hear`` and to the scheduler until that stops the trial; return how it ended."""
    status: TrialStatus
    best, result = -math.inf, {}
    scheduler.on_trial_add(None, trial)
    for epoch, (score, loss) in enumerate(zip(row["val_balanced_accuracy"], row["val_loss"], strict=True), start=1):
        metrics = {"val_balanced_accuracy": score, "val_loss": loss}
        hear(TrialReport(status="running", epoch=epoch, metrics=metrics, is_best=score > best))
        best = max(best, score)
        result = {"epoch": epoch, "objective": best}
        if scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP:
            status = "pruned" if epoch < len(row["val_loss"]) or row["reason"] else "complete"
            break
    else:
        status = "failed" if row["reason"] else "complete"
    if status == "failed":
        scheduler.on_trial_error(None, trial)
    else:
        scheduler.on_trial_complete(None, trial, result)
    return status
