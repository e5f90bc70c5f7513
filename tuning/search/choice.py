"""The choice of the winner: by log loss on held-out images, with ties going to the cheaper option.

1. Linear probes are compared by cross-validation over the training and validation images, and so is an ensemble of the
   best of them. A trained trial can be a member if its re-runs cover all folds.
2. The best of these is compared with the trained trials: with those that were re-run on folds of the same images, on
   these folds, else with all on the validation images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from data.text import pluralize
from models.evaluation.estimate import Estimate
from models.evaluation.metrics import Floats, Labels
from models.profiling.serving_cost import ServingCost
from tuning.common.trial_record import TrialRecord
from tuning.recipe.schema import Preference
from tuning.search.evidence import Evidence, Images, Member, Option, SelectionEstimate, corrected_estimate

MAX_RELATIVE_COST = 2 / 3  # of a cheaper option: small savings are no reason to accept a loss
# By preference: a cheaper option may be worse, and an ensemble must be better, by this number of standard errors of the
# paired difference. ``python -m benchmarks.selection`` measures what they cost and bring.
TOLERANCE: Mapping[Preference, float] = {"accuracy": 0.0, "balanced": 0.5, "small": 1.0}
ENSEMBLE_MARGIN: Mapping[Preference, float] = {"accuracy": 0.0, "balanced": 0.5, "small": 1.0}

Basis = Literal["all folds", "folds of the re-runs", "validation"]
# A trained trial must be better than the best probes by this number of standard errors. Its best epoch was chosen on
# these images, and without re-runs the trial as well; a probe is refitted on more images.
TRAINED_MARGIN: Mapping[Basis, float] = {"validation": 1.0, "folds of the re-runs": 0.5}
CostOf = Callable[[TrialRecord], ServingCost | None]  # the serving cost of a trial's network, if known


class Choice(NamedTuple):
    """The chosen option.

    Attributes:
        members: one trial, or the members of an ensemble, the largest weight first.
        estimate: what to expect of it.
        basis: the images of the estimate: those of all folds, those in the folds of the re-runs, or the validation
            images.
        logits: [n, k] of the images of the estimate, for which the option was not trained.
        labels: [n] of these images.
        tied: the other trials that are not worse by more than one standard error.
        ensemble_gain: by how much the ensemble reduces the loss of the best single probe; None without an ensemble.
    """

    members: tuple[Member, ...]
    estimate: SelectionEstimate
    basis: Basis
    logits: Floats
    labels: Labels
    tied: tuple[TrialRecord, ...]
    ensemble_gain: Estimate | None = None

    @property
    def is_cross_validated(self) -> bool:
        """Whether each training and validation image was held out once."""
        return self.basis == "all folds"

    @property
    def text(self) -> str:
        """How the winner was chosen, and how good it is expected to be, as a sentence without a period."""
        score, images = self.estimate.score, pluralize(len(self.labels), "image")
        where = {
            "all folds": f"over folds of the {images} for training and validation",
            "folds of the re-runs": f"on {images} in the folds of the re-runs",
            "validation": f"on {images} of the validation split",
        }[self.basis]
        parts = [
            f"chosen by log loss {where}: expected balanced accuracy {score.mean:.4f} ± {score.standard_error:.4f}"
        ]
        if gain := self.ensemble_gain:
            parts.append(f"the mean reduces the loss by {gain.mean:.3f} ± {gain.standard_error:.3f}")
        if self.tied:
            parts.append(f"{pluralize(len(self.tied), 'other trial')} within one standard error")
        return "; ".join(parts)


def choose(
    allowed: Sequence[TrialRecord],
    reruns: Mapping[str, Sequence[TrialRecord]],
    evidence: Evidence,
    cost_of: CostOf,
    rules: ChoiceRules,
) -> Choice | None:
    """Choose among the allowed trials; None if the evidence of all of them is missing.

    ``reruns`` has the complete re-runs of each trial by its uid.
    """
    candidates = [trial for trial in allowed if evidence.has(trial)]
    probes = [trial for trial in candidates if evidence.is_cross_validated(trial)]
    trained = [trial for trial in candidates if not evidence.is_cross_validated(trial)]
    evidence = evidence.with_reruns(reruns)
    covered = [trial for trial in trained if evidence.is_cross_validated(trial)]
    best_probes = _choose_probes(probes, covered, evidence, cost_of, rules) if probes else None
    if not trained:
        return best_probes
    comparison = _on_folds(trained, best_probes, reruns, evidence, cost_of)
    if comparison is None:
        comparison = _on_validation(trained, best_probes, reruns, evidence, cost_of)
    chosen = prefer_cheaper(comparison.trained, comparison.images, rules.tolerance)
    if best_probes and comparison.probes:
        reduction = comparison.images.estimate(comparison.probes.losses - chosen.losses)
        if reduction.mean <= TRAINED_MARGIN[comparison.basis] * reduction.standard_error:
            return best_probes
    known = ~np.isnan(chosen.losses)
    return Choice(
        members=chosen.members,
        estimate=corrected_estimate(comparison.trained, chosen, comparison.images),
        basis=comparison.basis,
        logits=chosen.logits[known],
        labels=comparison.images.labels[known],
        tied=_tied(chosen, comparison.trained, comparison.images),
    )


class _Comparison(NamedTuple):
    """Trained trials and the chosen probes, if there are any, with their losses for the same images."""

    trained: list[Option]
    probes: Option | None
    images: Images
    basis: Basis


def _on_folds(
    trained: Sequence[TrialRecord],
    best_probes: Choice | None,
    reruns: Mapping[str, Sequence[TrialRecord]],
    evidence: Evidence,
    cost_of: CostOf,
) -> _Comparison | None:
    """Compare by re-runs on common folds, on which neither training nor the search has seen the images.

    None if fewer than two options have results for them.
    """
    covered = {trial.trial_uid: evidence.covered_folds(reruns.get(trial.trial_uid, ())) for trial in trained}
    folds = max(covered.values(), key=len)
    rerun_trials = [trial for trial in trained if covered[trial.trial_uid] >= folds]
    if not folds or len(rerun_trials) + (best_probes is not None) < 2:
        return None
    options = [evidence.on_folds(trial, reruns[trial.trial_uid], _latency(cost_of(trial))) for trial in rerun_trials]
    restricted = [evidence.restrict(option, folds) for option in options]
    of_probes = None
    if best_probes is not None:
        of_probes = evidence.restrict(evidence.on_development(best_probes.members), folds)
    return _Comparison(restricted, of_probes, evidence.development, "folds of the re-runs")


def _on_validation(
    trained: Sequence[TrialRecord],
    best_probes: Choice | None,
    reruns: Mapping[str, Sequence[TrialRecord]],
    evidence: Evidence,
    cost_of: CostOf,
) -> _Comparison:
    """Compare on the validation images; the losses of a re-run trial are means over its seeds."""
    options = [
        evidence.on_validation([Member(trial)], reruns.get(trial.trial_uid, ()), _latency(cost_of(trial)))
        for trial in trained
    ]
    of_probes = None if best_probes is None else evidence.on_validation(best_probes.members)
    return _Comparison(options, of_probes, evidence.val, "validation")


class ChoiceRules(NamedTuple):
    """The rules of a choice.

    Attributes:
        tolerance: standard errors by which a cheaper option may be worse.
        ensemble_margin: standard errors by which an ensemble must be better.
        max_members: of an ensemble; 1: no ensembles.
        is_allowed: whether members together keep the limits.
    """

    tolerance: float
    ensemble_margin: float
    max_members: int
    is_allowed: Callable[[Sequence[TrialRecord]], bool]

    @classmethod
    def of_preference(
        cls, preference: Preference, max_members: int, is_allowed: Callable[[Sequence[TrialRecord]], bool]
    ) -> ChoiceRules:
        """Return the rules of the option ``prefer``."""
        return cls(TOLERANCE[preference], ENSEMBLE_MARGIN[preference], max_members, is_allowed)


def prefer_cheaper(options: Sequence[Option], images: Images, tolerance: float) -> Option:
    """Return the option with the lowest loss, or a much cheaper one that is worse by at most ``tolerance`` errors.

    Of several such options the cheapest is returned (the one-standard-error rule of Breiman et al., "Classification
    and Regression Trees", 1984, for paired differences).
    """
    best = min(options, key=lambda option: images.estimate(option.losses).mean)

    def is_acceptable(option: Option) -> bool:
        if option.cost_ms is None or best.cost_ms is None or option.cost_ms > MAX_RELATIVE_COST * best.cost_ms:
            return False
        excess = images.estimate(option.losses - best.losses)
        return excess.mean <= tolerance * excess.standard_error

    acceptable = [option for option in options if is_acceptable(option)]
    return min(acceptable, key=lambda option: option.cost_ms or 0.0, default=best)


def _latency(cost: ServingCost | None) -> float | None:
    return None if cost is None else cost.latency_ms


def _choose_probes(
    probes: Sequence[TrialRecord],
    trained: Sequence[TrialRecord],
    evidence: Evidence,
    cost_of: CostOf,
    rules: ChoiceRules,
) -> Choice:
    """Choose among probes and an ensemble of the best of them and of trained trials, all cross-validated."""
    options, others = (
        [evidence.on_development([Member(trial)], _latency(cost_of(trial))) for trial in trials]
        for trials in (probes, trained)
    )
    images = evidence.development
    best = prefer_cheaper(options, images, rules.tolerance)
    chosen, gain = best, None
    ensemble = _ensemble([*options, *others], evidence, rules)
    if ensemble is not None:
        reduction = images.estimate(best.losses - ensemble.losses)
        if reduction.mean > rules.ensemble_margin * reduction.standard_error:
            chosen, gain = ensemble, reduction
    estimate = corrected_estimate([*options, *([chosen] if gain else [])], chosen, images)
    tied = _tied(chosen, options, images)
    known = ~np.isnan(chosen.losses)
    return Choice(chosen.members, estimate, "all folds", chosen.logits[known], images.labels[known], tied, gain)


def _ensemble(options: Sequence[Option], evidence: Evidence, rules: ChoiceRules) -> Option | None:
    """Return the best mean of different networks or image sizes, or None if it has a single member.

    Greedy selection with replacement by the loss of the mean (Caruana et al., "Ensemble Selection from Libraries of
    Models", ICML 2004), from as many of the best options as there may be members.
    """
    images = evidence.development
    pool = [option.trial for option in _best_per_network(options, images)[: rules.max_members]]
    chosen: list[int] = []  # positions in the pool

    def mean_of(positions: Sequence[int]) -> Option:
        counts = Counter(positions).most_common()
        return evidence.on_development([Member(pool[each], count / len(positions)) for each, count in counts])

    for _ in range(rules.max_members):
        extended = [[*chosen, position] for position in range(len(pool))]
        allowed = [positions for positions in extended if rules.is_allowed([pool[each] for each in set(positions)])]
        if not allowed:
            break
        chosen = min(allowed, key=lambda positions: images.estimate(mean_of(positions).losses).mean)
    return mean_of(chosen) if len(set(chosen)) > 1 else None


def _best_per_network(options: Sequence[Option], images: Images) -> list[Option]:
    """Return the best option of each network and image size, best first; others would compute nearly the same.

    A trained network is another than the pretrained one of a probe.
    """
    best: dict[tuple[str, int, bool], Option] = {}
    for option in sorted(options, key=lambda option: images.estimate(option.losses).mean):
        config = option.trial.config
        best.setdefault((config.network.backbone, config.preprocessing.image_size, config.is_probe), option)
    return list(best.values())


def _tied(chosen: Option, options: Sequence[Option], images: Images) -> tuple[TrialRecord, ...]:
    members = {member.trial.trial_uid for member in chosen.members}

    def is_tied(option: Option) -> bool:
        excess = images.estimate(option.losses - chosen.losses)
        return option.trial.trial_uid not in members and excess.mean <= excess.standard_error

    return tuple(option.trial for option in options if is_tied(option))
