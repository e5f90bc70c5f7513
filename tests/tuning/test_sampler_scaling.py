"""The driver's cost of a growing search: a small run of the simulation in benchmarks/sampler_scaling.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.sampler_scaling import SEARCH, Simulation
from tuning.recipe.schema import Recipe


@pytest.mark.parametrize(
    ("sampler", "scheduler", "rows"), [("tpe", "asha", (360, 400)), ("random", "median", (400, 800))]
)
def test_the_cost_of_a_trial_for_the_driver_is_small_and_does_not_grow_with_the_search(
    tmp_path: Path, sampler: str, scheduler: str, rows: tuple[int, int]
) -> None:
    recipe = Recipe.model_validate({**SEARCH, "sampler": sampler, "scheduler": scheduler})
    simulation = Simulation(tmp_path, recipe, pending=60)
    early, late = simulation.run(rows[-1], rows)
    assert len(simulation.store.running()) == 59
    assert {trial.status for trial in simulation.store.trials()} == {"running", "complete", "pruned"}
    # CPU time, which at most doubles on a busy machine; iterating over all trials would more than double it.
    assert late.ask_cpu_ms < 2 * early.ask_cpu_ms
    assert late.cpu_ms - late.ask_cpu_ms < 2 * (early.cpu_ms - early.ask_cpu_ms)
    assert late.ask_cpu_ms < 200
