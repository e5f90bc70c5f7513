"""The course of a search: which trial comes next, whether to wait for one that runs, or that it is enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from tuning.common.trial_record import TrialRecord
from tuning.recipe.schema import Recipe
from tuning.search.reevaluation import next_rerun
from tuning.search.study import TrialStore
from tuning.search.time_budget import TimeBudget, probe_time_exhausted

NextStep: TypeAlias = TrialRecord | Literal["wait", "end"]


class SearchStrategy:
    """Leads a search: trials that were interrupted, the starts, the sampler's, the finals.

    Args:
        recipe: with the budget that is left for this part of the search.
        ledger: asked for the trials.
        clock: of the minutes.
        is_ended: whether the user asked to end.
        at_once: how many trials may run now.
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
        """Return the next trial, already written down."""
        ledger = self._store
        if self._should_stop() or self._time_budget.is_exhausted or ledger.all_trials_failed:
            return "end"
        if ledger.num_running >= self._max_concurrent():
            return "wait"
        if ledger.num_requeued:
            return ledger.ask()
        if ledger.num_probes_left and probe_time_exhausted(self._time_budget.fraction_used, ledger.leading_phase):
            ledger.end_probes()
        if not self._exploration_done:
            return ledger.ask()
        final = self._next_rerun()
        if final is not None:
            return ledger.ask_rerun(*final)
        return "wait" if ledger.num_running else "end"  # whoever runs may still become a finalist

    @property
    def _exploration_done(self) -> bool:
        """Whether no new settings are tried any more."""
        most = self._recipe.max_trials
        spent = most is not None and not self._store.num_probes_left and self._store.num_trials >= most
        return spent or self._time_budget.exploration_exhausted

    def _next_rerun(self) -> tuple[TrialRecord, int] | None:
        recipe, ledger = self._recipe, self._store
        if not (recipe.rerun_top_k and recipe.rerun_seeds):
            return None
        return next_rerun(
            ledger.trials(),
            recipe.rerun_top_k,
            recipe.rerun_seeds,
            ledger.num_val_images,
            self._time_budget.has_time_for,
        )
