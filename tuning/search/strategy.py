"""The course of a search: which trial comes next, whether to wait for one that runs, or that it is enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from tuning.common.trial_record import TrialResult
from tuning.recipe.schema import Recipe
from tuning.search.reevaluation import next_final
from tuning.search.study import Ledger
from tuning.search.time_budget import Clock, sweep_over

Step: TypeAlias = TrialResult | Literal["wait", "end"]


class Course:
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
        ledger: Ledger,
        clock: Clock,
        is_ended: Callable[[], bool],
        at_once: Callable[[], int],
    ) -> None:
        self._recipe = recipe
        self._ledger = ledger
        self._clock = clock
        self._is_ended = is_ended
        self._at_once = at_once

    def next(self) -> Step:
        """Return the next trial, already written down."""
        ledger = self._ledger
        if self._is_ended() or self._clock.over or ledger.is_hopeless:
            return "end"
        if ledger.at_work >= self._at_once():
            return "wait"
        if ledger.put_back_left:
            return ledger.ask()
        if ledger.probes_left and sweep_over(self._clock.share, ledger.lead):
            ledger.end_sweep()
        if not self._sampled:
            return ledger.ask()
        final = self._final()
        if final is not None:
            return ledger.ask_final(*final)
        return "wait" if ledger.at_work else "end"  # whoever runs may still become a finalist

    @property
    def _sampled(self) -> bool:
        """Whether no new settings are tried any more."""
        most = self._recipe.most_trials
        spent = most is not None and not self._ledger.probes_left and self._ledger.trials >= most
        return spent or self._clock.sampling_over

    def _final(self) -> tuple[TrialResult, int] | None:
        recipe, ledger = self._recipe, self._ledger
        if not (recipe.finalists and recipe.final_seeds):
            return None
        return next_final(ledger.results(), recipe.finalists, recipe.final_seeds, ledger.val_pictures, self._clock.fits)
