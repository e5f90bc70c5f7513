"""What a search costs its driver as it grows: a small run of the simulation in benchmarks/sampler_scaling.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.sampler_scaling import SEARCH, Simulation
from tuning.recipe.schema import Recipe


@pytest.mark.parametrize(
    ("sampler", "scheduler", "rows"), [("tpe", "asha", (360, 400)), ("random", "median", (400, 800))]
)
def test_a_search_of_many_trials_at_once_costs_its_driver_little_and_no_more_as_it_grows(
    tmp_path: Path, sampler: str, scheduler: str, rows: tuple[int, int]
) -> None:
    recipe = Recipe.model_validate({**SEARCH, "sampler": sampler, "scheduler": scheduler})
    simulation = Simulation(tmp_path, recipe, pending=60)
    early, late = simulation.run(rows[-1], rows)
    assert len(simulation.ledger.running()) == 59
    assert {result.status for result in simulation.ledger.trials()} == {"running", "complete", "pruned"}
    # Processor time, which a busy machine doubles at most: growth as in a search through all trials would be more.
    assert late.ask_cpu_ms < 2 * early.ask_cpu_ms
    assert late.cpu_ms - late.ask_cpu_ms < 2 * (early.cpu_ms - early.ask_cpu_ms)
    assert late.ask_cpu_ms < 200
