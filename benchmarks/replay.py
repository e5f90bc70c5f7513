"""Replay recorded learning curves (``benchmarks/record_curves.py``) instead of training."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import TrialScheduler

from benchmarks.record_curves import FOLDER
from tuning.common.option_types import ParamValue
from tuning.common.trial_record import TrialReport, TrialStatus
from tuning.recipe.schema import Recipe
from tuning.search.space import SearchSpace

UNLIMITED = {"trials": "1000", "rerun_top_k": "0"}  # a replay ends by itself
NUM_VAL_IMAGES = 180  # of the smaller recorded data set
LOGARITHMIC = ("lr", "weight_decay")
# A linear probe differs more from a fine-tune of the last block than their fractions say: nothing of the network is
# trained.
PROBE_DISTANCE = 3.0

Row = dict[str, Any]


def tables() -> Iterator[tuple[str, list[Row]]]:
    """Yield the name and the rows of every recorded table."""
    for file in sorted(FOLDER.glob("*.jsonl")):
        yield file.stem, [json.loads(line) for line in file.read_text().splitlines()]


def space_of(table: Sequence[Row], recipe: Recipe) -> SearchSpace:
    """Return the search space of the table; class balance is searched if the table varies it."""
    balanced = any(row["settings"]["balance"] != "none" for row in table)
    return SearchSpace(recipe, imbalance_ratio=math.inf if balanced else 1.0)


def best(table: Sequence[Row]) -> Row:
    """Return the row with the best validation score of a table."""
    return max(table, key=lambda row: max(row["val_balanced_accuracy"], default=0.0))


def top(table: Sequence[Row]) -> float:
    """Return the best validation score of a table, at which the regret is 0."""
    return float(max(best(table)["val_balanced_accuracy"]))


def distance(first: dict[str, ParamValue], second: dict[str, ParamValue]) -> float:
    """Return the distance of two configurations: 1 for each categorical difference, up to 1 for each number."""
    total = PROBE_DISTANCE * ((first["freeze_fraction"] == 1) != (second["freeze_fraction"] == 1))
    for name, value in first.items():
        other = second[name]
        if isinstance(value, float) and isinstance(other, float):
            is_log = name in LOGARITHMIC
            total += abs(math.log10(value) - math.log10(other)) / 2 if is_log else abs(value - other)
        else:
            total += value != other
    return total


def nearest(rows: Sequence[Row], settings: dict[str, ParamValue]) -> Row:
    """Return the row with the smallest distance to the settings."""
    return min(rows, key=lambda row: distance(settings, row["settings"]))


def play(row: Row, scheduler: Any, trial: SimpleNamespace, on_report: Callable[[TrialReport], None]) -> TrialStatus:  # noqa: ANN401
    """Report the row's epochs to ``on_report`` and the scheduler until it stops the trial; return the status."""
    status: TrialStatus
    best, result = -math.inf, {}
    scheduler.on_trial_add(None, trial)
    for epoch, (score, loss) in enumerate(zip(row["val_balanced_accuracy"], row["val_loss"], strict=True), start=1):
        metrics = {"val_balanced_accuracy": score, "val_loss": loss}
        on_report(TrialReport(status="running", epoch=epoch, metrics=metrics, is_best=score > best))
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
