"""Measure the time of a proposal as a search grows: ``python -m benchmarks.sampler_scaling [--sampler tpe]``.

The trials have random settings of a real search space and random scores. A row has the number of ended trials and the
median and highest CPU time of ten proposals in milliseconds.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

import optuna
from optuna.samplers import RandomSampler

from benchmarks.record_curves import SPACE
from tuning.recipe.schema import Recipe
from tuning.search.samplers import build_sampler
from tuning.search.space import SearchSpace

ROWS = (100, 300, 1_000, 3_000, 10_000, 20_000)
NUM_PROPOSALS = 10


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sampler", default="tpe")
    recipe = Recipe.model_validate({**SPACE, "sampler": parser.parse_args().sampler})
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study, space = optuna.create_study(direction="maximize"), SearchSpace(recipe)
    print("trials median_ms max_ms", flush=True)
    for row in ROWS:
        study.sampler = RandomSampler(recipe.seed)
        add_trials(study, space, row - len(study.get_trials(deepcopy=False)))
        study.sampler = build_sampler(recipe.sampler, recipe.seed)
        proposals_ms = add_trials(study, space, NUM_PROPOSALS)
        print(row, f"{statistics.median(proposals_ms):.0f} {max(proposals_ms):.0f}", flush=True)


def add_trials(study: optuna.Study, space: SearchSpace, count: int) -> list[float]:
    """Sample trials and end them with random scores; return the CPU milliseconds of each proposal."""
    proposals_ms = []
    for _ in range(count):
        started_s = time.process_time()
        trial = study.ask()
        space.suggest(trial)
        proposals_ms.append(1000 * (time.process_time() - started_s))
        study.tell(trial, random.random())
    return proposals_ms


if __name__ == "__main__":
    main()
