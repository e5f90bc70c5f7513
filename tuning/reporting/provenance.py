"""Where the result of a search comes from: recipe, budget, time, machine, versions, and how to train it again."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from data.machine import available_cores
from data.text import pluralize
from models.profiling.hardware import hardware
from tuning.common.formatting import budget_text, clock
from tuning.common.trial_record import TrialRecord
from tuning.recipe.schema import Recipe
from tuning.search.time_budget import Elapsed

LIBRARIES = ("torch", "timm", "onnxruntime", "optuna", "ray", "mlflow")


@dataclass(frozen=True)
class Provenance:
    """Where the result of a search comes from, as text.

    ``minutes`` is the wall time of all sessions of the search. ``started`` and ``ended`` are the local times of the
    first trial's start and of the last trial's end; empty if unknown. ``run_url`` is the web address of the search's
    run; empty if the tracking store has none. ``train_command`` trains the winner again; empty if neither its run nor
    its version is known.
    """

    recipe: str
    budget: str
    seed: int
    minutes: float
    started: str
    ended: str
    machine: str
    versions: str
    run_url: str
    train_command: str

    @classmethod
    def collect(
        cls, recipe: Recipe, trials: Sequence[TrialRecord], elapsed: Elapsed, run_url: str, train_command: str
    ) -> Provenance:
        """Return the provenance of a search that ran on this machine."""
        starts = [trial.started_s for trial in trials if trial.started_s is not None]
        ends = [trial.ended_s for trial in trials if trial.ended_s is not None]
        return cls(
            recipe=recipe.recipe,
            budget=_budget(recipe, elapsed),
            seed=recipe.seed,
            minutes=elapsed.total_s / 60,
            started=_local_time(min(starts)) if starts else "",
            ended=_local_time(max(ends)) if ends else "",
            machine=_machine(),
            versions=_versions(),
            run_url=run_url,
            train_command=train_command,
        )


def _budget(recipe: Recipe, elapsed: Elapsed) -> str:
    """Return the budget; the minutes of a resumed search are those of its last session."""
    text = budget_text(recipe.budget_s, recipe.max_trials)
    if recipe.budget_s is None or not elapsed.earlier_s:
        return text
    return f"{text} (minutes of the last session, which took {clock(elapsed.counted_s)})"


def _machine() -> str:
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join([hardware(), pluralize(available_cores(), "core"), *(gpus or ["no GPU"])])


def _versions() -> str:
    libraries = [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES]
    return ", ".join([f"Python {platform.python_version()}", *libraries])


def _local_time(unix_s: float) -> str:
    return f"{datetime.fromtimestamp(unix_s).astimezone():%Y-%m-%d %H:%M:%S %Z}"
