"""The result of a search: its trials and the selected winner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from models.evaluation.metrics import Floats, Labels
from models.profiling.serving_cost import ServingCost
from tuning.common.trial_record import TrialRecord
from tuning.recipe.schema import Recipe
from tuning.search import selection
from tuning.search.choice import Choice, ChoiceRules, choose
from tuning.search.evidence import Evidence, Member
from tuning.search.gains import Gain, gains
from tuning.search.reruns import Improvement, RerunTrial, improvement_over_default, reruns_of, top_trials
from tuning.search.selection import CostedTrial, Costs, Limits


@dataclass(frozen=True)
class SearchResult:
    """The trials of a search, the winner, and what supports its selection.

    Attributes:
        winner: the chosen trial; of an ensemble the member with the largest weight.
        members: the winner, or the members of the chosen ensemble.
        choice: the evidence of the choice; None if the held-out predictions of all trials are missing, in which case
            the trial with the best score wins.
        reruns: the trials that were to be re-run with other seeds, best first; empty if none was. A trial with a single
            score was not re-run, because the time was over.
        improvement: of the winner over the default; None if the default won or was not trained to its end.
        gains: of the choice over the default configuration and the best probe.
    """

    trials: tuple[TrialRecord, ...]
    winner: TrialRecord
    members: tuple[Member, ...]
    choice: Choice | None
    reruns: tuple[RerunTrial, ...]
    improvement: Improvement | None
    gains: tuple[Gain, ...]
    costs: Costs
    limits: Limits
    num_classes: int

    @classmethod
    def select(
        cls, trials: Sequence[TrialRecord], costs: Costs, limits: Limits, recipe: Recipe, evidence: Evidence
    ) -> SearchResult:
        """Select the winner; the recipe has the rules of the choice.

        Raises:
            SearchError: no trial's network keeps the limits.
        """
        num_classes, num_val_images = evidence.num_classes, len(evidence.val.labels)
        allowed = selection.within_limits(trials, costs, limits, num_classes)
        if not allowed:
            raise ValueError("a search without a scored trial has no winner")

        def cost_of(trial: TrialRecord) -> ServingCost | None:
            return costs.get(selection.serving_spec_of(trial, num_classes))

        def keeps_limits(members: Sequence[TrialRecord]) -> bool:
            return selection.keep_limits([cost_of(trial) for trial in members], limits)

        rules = ChoiceRules.of_preference(recipe.prefer, recipe.ensemble, keeps_limits)
        choice = choose(
            allowed, {trial.trial_uid: reruns_of(trial, trials) for trial in allowed}, evidence, cost_of, rules
        )
        members = choice.members if choice else (Member(allowed[0]),)
        winner = members[0].trial
        top = top_trials(trials, recipe.rerun_top_k, num_val_images)
        return cls(
            trials=tuple(trials),
            winner=winner,
            members=members,
            choice=choice,
            reruns=tuple(top) if any(len(trial.scores) > 1 for trial in top) else (),
            improvement=improvement_over_default(winner, trials, recipe.rerun_top_k, num_val_images),
            gains=tuple(gains(members, trials, evidence)),
            costs=costs,
            limits=limits,
            num_classes=num_classes,
        )

    @property
    def held_out(self) -> tuple[Floats, Labels] | None:
        """Logits [n, k] and labels [n] of images that the winner's fits left out; None without cross-validation.

        The winner's final weights may have been fitted on these images.
        """
        choice = self.choice
        return (choice.logits, choice.labels) if choice and choice.is_cross_validated else None

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
