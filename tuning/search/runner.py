"""Running a search: Ray Tune on the ledger, until the budget is spent or the user asks to end."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuning.interrupts import Interrupts
from tuning.recipe import Recipe
from tuning.search.budget import Clock
from tuning.search.cluster import cores
from tuning.search.ledger import Ledger, TrialResult
from tuning.search.paths import SearchPaths
from tuning.trial import TrialTask, run_trial

if TYPE_CHECKING:
    from tuning.search.sampler import Listener


def concurrency(recipe: Recipe) -> int:
    """Return how many trials run at once: what was asked for, else what the cores of this machine carry."""
    return recipe.concurrent or max(1, cores() // recipe.cpus_per_trial)


def run_trials(
    recipe: Recipe,
    paths: SearchPaths,
    ledger: Ledger,
    listeners: Sequence[Listener],
    interrupts: Interrupts,
    clock: Clock,
) -> None:
    """Run the recipe's trials on the Ray that was started; returns when they, the user or the clock ended.

    Trials that were running then are left unfinished in the ledger.
    """
    from ray import tune

    from tuning.search.sampler import LedgerSearcher
    from tuning.search.schedulers import build_scheduler

    def make_task(result: TrialResult) -> TrialTask:
        return TrialTask(
            trial_uid=result.trial_uid,
            config=result.config,
            search_root=paths.root,
            threads=recipe.cpus_per_trial,
        )

    def stop() -> bool:
        if clock.sweep_over:
            ledger.end_sweep()
        spent = recipe.most_trials is not None and not ledger.probes_left and ledger.trials >= recipe.most_trials
        return spent or ledger.is_hopeless or interrupts.requested or clock.over

    def end() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)  # Tune ends its loop on it

    tuner = tune.Tuner(
        tune.with_resources(run_trial, {"cpu": recipe.cpus_per_trial, "gpu": recipe.gpus_per_trial}),
        tune_config=tune.TuneConfig(
            search_alg=LedgerSearcher(ledger, (*listeners, clock), make_task, stop),
            scheduler=build_scheduler(recipe.scheduler, recipe.max_epochs),
            num_samples=-1,  # ``stop`` ends it
            max_concurrent_trials=concurrency(recipe),
            reuse_actors=True,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(name="tune", storage_path=str(paths.ray), verbose=0),
    )
    # Until Tune's handler is there the signal must not end the process.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    interrupts.install()
    with interrupts.deferred(end), clock.ringing(end):
        tuner.fit()


def _name(trial: object) -> str:
    return f"trial_{getattr(trial, 'trial_id', '')}"
