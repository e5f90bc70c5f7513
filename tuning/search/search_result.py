"""The result of a search: its trials and the selected winner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from data.dataset.dataset import Dataset
from models.profiling.serving_cost import ServingCost
from tuning.common.trial_record import TrialRecord
from tuning.search import selection
from tuning.search.reruns import Improvement, RerunTrial, improvement_over_default, select_winner, top_trials
from tuning.search.selection import CostedTrial, Costs, Limits


@dataclass(frozen=True)
class SearchResult:
    """The trials of a search, the winner, and what supports its selection.

    Attributes:
        winner: the trial with the highest score, or mean score if trials were re-run, within the limits.
        reruns: the trials that were to be re-run with other seeds, best first; empty if none was. A trial with a single
            score was not re-run, because the time was over.
        improvement: of the winner over the default; None if the default won or was not trained to its end.
    """

    trials: tuple[TrialRecord, ...]
    winner: TrialRecord
    reruns: tuple[RerunTrial, ...]
    improvement: Improvement | None
    costs: Costs
    limits: Limits
    num_classes: int

    @classmethod
    def select(
        cls, trials: Sequence[TrialRecord], costs: Costs, limits: Limits, top_k: int, dataset: Dataset
    ) -> SearchResult:
        """Select the winner; ``top_k`` is the number of trials that were to be re-run.

        Raises:
            SearchError: no trial's network keeps the limits.
        """
        num_classes, num_val_images = len(dataset.classes), len(dataset.split("val"))
        allowed = selection.within_limits(trials, costs, limits, num_classes)
        winner = select_winner(allowed, trials, top_k, num_val_images)
        if winner is None:
            raise ValueError("a search without a scored trial has no winner")
        top = top_trials(trials, top_k, num_val_images)
        reruns = top if any(len(trial.scores) > 1 for trial in top) else []
        improvement = improvement_over_default(winner, trials, top_k, num_val_images)
        return cls(tuple(trials), winner, tuple(reruns), improvement, costs, limits, num_classes)

    @cached_property
    def default(self) -> TrialRecord | None:
        """The trial of the default configuration, if it has started."""
        return selection.default_trial(self.trials)

    @cached_property
    def ranked(self) -> list[TrialRecord]:
        """All eligible trials, best first, then the others by number."""
        return selection.ranked(self.trials) + [trial for trial in self.trials if not trial.is_eligible]

    @cached_property
    def costed_trials(self) -> list[CostedTrial]:
        """The best trial of each network whose serving cost is known, best first."""
        return selection.best_per_serving_spec(self.trials, self.costs, self.num_classes)

    @cached_property
    def num_networks(self) -> int:
        """The number of networks with a scored trial, whether or not their serving cost was measured."""
        return len({selection.serving_spec_of(trial, self.num_classes) for trial in selection.ranked(self.trials)})

    @property
    def has_pareto_front(self) -> bool:
        """Whether the costs of enough networks are known to compare accuracy with cost."""
        return len(self.costed_trials) >= selection.MIN_PARETO_NETWORKS

    @property
    def winner_cost(self) -> ServingCost | None:
        """The winner's serving cost, if known."""
        return self.costs.get(selection.serving_spec_of(self.winner, self.num_classes))
