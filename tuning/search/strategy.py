"""The search strategy: which trial comes next, whether to wait for a running one, and when the search ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from tuning.common.trial_record import TrialRecord
from tuning.recipe.schema import Recipe
from tuning.search.reruns import next_rerun
from tuning.search.study import TrialStore
from tuning.search.time_budget import TimeBudget, probe_time_exhausted

NextStep: TypeAlias = TrialRecord | Literal["wait", "end"]


class SearchStrategy:
    """Decides the order: interrupted trials, enqueued trials, the sampler's proposals, re-runs of the best.

    Args:
        recipe: the recipe with the remaining budget.
        store: creates the trials.
        time_budget: the time budget of the search.
        should_stop: returns whether the user requested a stop.
        max_concurrent: returns how many trials may run now.
    """

    def __init__(
        self,
        recipe: Recipe,
        store: TrialStore,
        time_budget: TimeBudget,
        should_stop: Callable[[], bool],
        max_concurrent: Callable[[], int],
    ) -> None:
        self._recipe = recipe
        self._store = store
        self._time_budget = time_budget
        self._should_stop = should_stop
        self._max_concurrent = max_concurrent

    def next(self) -> NextStep:
        """Return the next trial, already saved, or whether to wait or to end the search."""
        store = self._store
        if self._should_stop() or self._time_budget.is_exhausted or store.all_trials_failed:
            return "end"
        if store.num_running >= self._max_concurrent():
            return "wait"
        if store.num_requeued:
            return store.ask()
        if store.num_probes_left and probe_time_exhausted(self._time_budget.fraction_used, store.leading_phase):
            store.end_probes()
        if not self._exploration_done:
            return store.ask()
        rerun = self._next_rerun()
        if rerun is not None:
            return store.ask_rerun(*rerun)
        return "wait" if store.num_running else "end"  # a running trial may still qualify for a re-run

    @property
    def _exploration_done(self) -> bool:
        """Whether no new settings are tried any more."""
        max_trials, store = self._recipe.max_trials, self._store
        all_tried = max_trials is not None and not store.num_probes_left and store.num_trials >= max_trials
        return all_tried or self._time_budget.exploration_exhausted

    def _next_rerun(self) -> tuple[TrialRecord, int] | None:
        recipe, store = self._recipe, self._store
        if not (recipe.rerun_top_k and recipe.rerun_seeds):
            return None
        return next_rerun(
            store.trials(),
            recipe.rerun_top_k,
            recipe.rerun_seeds,
            store.num_val_images,
            self._time_budget.has_time_for,
        )
