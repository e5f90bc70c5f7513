"""The search strategy: which trial comes next, phase by phase.

Each phase is a pure function of the trials so far and of the time used. Nothing about the order of the trials is
stored, so a resumed search continues where it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias

from tuning.common.option_types import ParamValue
from tuning.common.trial_record import TrialOrigin, TrialRecord
from tuning.recipe.schema import Recipe
from tuning.search.defaults import MIN_SAMPLED, PROMOTED_SHARE
from tuning.search.reruns import NextRerun, RerunPlan, next_rerun
from tuning.search.selection import is_significantly_better
from tuning.search.space import SearchSpace
from tuning.search.start_trial import StartTrial

PhaseName: TypeAlias = Literal[
    "champion's configuration",
    "warm-up probes",
    "default",
    "probe sweep",
    "fine-tunes of the best probe",
    "sampler",
    "re-runs of the best",
]
# Which trials lead on validation: the defaults only if significantly better than the probes, the probes by any margin.
Leader: TypeAlias = Literal["defaults", "neither", "probes"]

EXPLORATION_SHARE = 0.8  # of the trials' time; the rest is for re-runs
# The share of the trials' time after which no trial of a phase starts. The probe sweep gets the more time the better
# the probes are; with many images, computing features takes long. Without re-runs, exploration may use all of the time.
LATEST_START: Mapping[PhaseName, float] = {
    "champion's configuration": EXPLORATION_SHARE,
    "warm-up probes": 0.1,
    "default": EXPLORATION_SHARE,
    "probe sweep": 0.6,
    "fine-tunes of the best probe": EXPLORATION_SHARE,
    "sampler": EXPLORATION_SHARE,
    "re-runs of the best": 1.0,
}
LATEST_SWEEP: Mapping[Leader, float] = {"defaults": 0.15, "neither": 0.3, "probes": LATEST_START["probe sweep"]}

PHASE_OF_ORIGIN: Mapping[TrialOrigin, PhaseName] = {
    "champion": "champion's configuration",
    "probe": "probe sweep",
    "default": "default",
    "fine_tune": "fine-tunes of the best probe",
    "sampler": "sampler",
    "rerun": "re-runs of the best",
}

MAX_FINE_TUNES = 2  # of the best probe
MAX_FINE_TUNE_SHARE = 0.25  # of the trials' time, for a fine-tune that precedes the sampler
MAX_PROBE_SHARE = 0.5  # of the trials' time, for the best probe on more images, while probes lead
MAX_INITIAL_FAILURES = 6  # failed trials, without any other, after which the search ends
MIN_FRACTION_LEFT = 0.01  # of the trials' time, to divide by
SAFETY_FACTOR = 1.25  # largest duration of a trial, which has no result if it is stopped, relative to its prediction


class Proposal(NamedTuple):
    """A new trial: its origin and the parameters that its phase fixes; the sampler chooses all others.

    ``start`` has the exact settings of a trial that the search starts from.
    """

    origin: TrialOrigin
    params: Mapping[str, ParamValue]
    start: StartTrial | None = None

    @property
    def is_probe(self) -> bool:
        """Whether it is a linear probe."""
        return self.origin == "probe" or (self.start is not None and self.start.is_probe)

    @property
    def fixed_params(self) -> dict[str, ParamValue]:
        """The parameters that determine the trial; empty if they do not: of the sampler, or outside of the space."""
        is_fixed = self.start.is_inside if self.start else self.origin != "sampler"
        return dict(self.params) if is_fixed else {}


NextStep: TypeAlias = Proposal | NextRerun | TrialRecord | Literal["wait", "end"]  # a record: an interrupted trial


@dataclass(frozen=True)
class SearchState:
    """The facts that a decision depends on.

    Attributes:
        trials: all trials by number.
        interrupted: the running trials that have lost their workers.
        fraction_used: the used fraction of the trials' time; 0 without a time budget.
        seconds_left: the rest of the trials' time; infinite without a time budget.
    """

    trials: Sequence[TrialRecord]
    interrupted: Sequence[TrialRecord] = ()
    fraction_used: float = 0.0
    seconds_left: float = math.inf


class Proposals(Protocol):
    """Chooses the proposals of the sampler and predicts times (``tuning.search.cost_aware``)."""

    def propose(self, state: SearchState) -> Mapping[str, ParamValue] | None:
        """Return the parameters of the next trial; empty: the sampler decides; None: no trial fits into the time."""

    def seconds(self, proposal: Proposal, trials: Sequence[TrialRecord], epochs: int | None = None) -> float:
        """Return the predicted seconds of a trial or its first epochs; 0 if they are unknown."""

    def rerun_seconds(self, trial: TrialRecord, fold: int | None, trials: Sequence[TrialRecord]) -> float:
        """Return the predicted seconds of a trial's re-run on a fold."""


class PlainProposals:
    """The sampler's own proposals, of unknown duration."""

    def propose(self, state: SearchState) -> Mapping[str, ParamValue] | None:
        """Return nothing: the sampler decides."""
        del state
        return {}

    def seconds(self, proposal: Proposal, trials: Sequence[TrialRecord], epochs: int | None = None) -> float:
        """Return 0."""
        del proposal, trials, epochs
        return 0.0

    def rerun_seconds(self, trial: TrialRecord, fold: int | None, trials: Sequence[TrialRecord]) -> float:
        """Return the seconds of the trial."""
        del fold, trials
        return trial.seconds


class SearchStrategy:
    """The phases of a search, in order; the recipe has the remaining budget.

    ``num_val_images`` determines the standard error of a score; ``num_folds`` is that of the re-runs.
    """

    def __init__(
        self,
        recipe: Recipe,
        space: SearchSpace,
        num_val_images: int,
        num_folds: int = 0,
        proposals: Proposals | None = None,
    ) -> None:
        self._recipe = recipe
        self._proposals = proposals or PlainProposals()
        self._space = space
        self._num_val_images = num_val_images
        self._rerun_plan = RerunPlan(recipe.rerun_top_k, recipe.rerun_seeds, num_folds)
        self._has_reruns = bool(recipe.rerun_top_k and recipe.rerun_seeds)

    def next(self, state: SearchState) -> NextStep:
        """Return the next trial, or whether to wait for a running one or to end the search."""
        if all_failed(state.trials) or (state.fraction_used >= 1 and has_result(state.trials)):
            return "end"
        for step in self._steps(state):
            if step is not None:
                return step
        # A running trial may still qualify for a re-run.
        return "wait" if any(trial.status == "running" for trial in state.trials) else "end"

    def _steps(self, state: SearchState) -> Iterator[NextStep | None]:
        yield next(iter(state.interrupted), None)  # continues from its checkpoint
        if not self._exploration_is_over(state):
            yield self.champion(state)
            yield self.warmup_probe(state)
            yield self.default(state)
            yield self.probe_on_more_images(state)
            yield self.probe(state)
            yield self.fine_tune(state)
            yield self.sample(state)
        yield self.rerun(state)
        if state.fraction_used < 1:
            yield self.sample(state)  # the time of the re-runs is left over

    def _exploration_is_over(self, state: SearchState) -> bool:
        latest_start = EXPLORATION_SHARE if self._has_reruns else 1.0
        return state.fraction_used >= latest_start and has_result(state.trials)

    def champion(self, state: SearchState) -> Proposal | None:
        """Return the configuration of a network of the version that the search starts from.

        If it is the default configuration, the trial is the default, so that the report can compare with it.
        """
        has_trials_left = not self._all_trials_started(state)
        return next((new for new in self._new_starts(state.trials) if new.is_probe or has_trials_left), None)

    def _new_starts(self, trials: Sequence[TrialRecord]) -> list[Proposal]:
        started = [trial.settings for trial in trials if trial.origin in ("champion", "default")]
        starts = [start for start in self._space.start_trials() if start.settings not in started]
        defaults = self._space.default_trials() if starts else []
        origins: list[TrialOrigin] = [
            "default" if start.is_inside and start.params in defaults else "champion" for start in starts
        ]
        return [Proposal(origin, start.params, start) for origin, start in zip(origins, starts, strict=True)]

    def warmup_probe(self, state: SearchState) -> Proposal | None:
        """Return a probe of the first network: these take seconds and often lead for minutes."""
        if state.fraction_used >= LATEST_START["warm-up probes"] or _started(state.trials, "default"):
            return None
        return _first_new("probe", self._space.warmup_probes(), state.trials)

    def default(self, state: SearchState) -> Proposal | None:
        """Return the default trial, or that of a variant without probes; no scheduler stops them."""
        if self._all_trials_started(state):
            return None
        return _first_new("default", self._space.default_trials(), state.trials)

    def probe(self, state: SearchState) -> Proposal | None:
        """Return a probe of the sweep, which is over once a later phase has begun."""
        return None if self._sweep_is_over(state) else next(iter(self._sweep_left(state.trials)), None)

    def _sweep_is_over(self, state: SearchState) -> bool:
        if state.fraction_used < min(LATEST_SWEEP.values()):  # it does not matter which trials lead
            return False
        return state.fraction_used >= LATEST_SWEEP[leader(state.trials, self._num_val_images)]

    def probe_on_more_images(self, state: SearchState) -> Proposal | None:
        """Return one of the best third of the probes on some number of images, on the next larger number.

        As soon as it is among the best third of those that have ended, as in asynchronous successive halving (Li et
        al., "A System for Massively Parallel Hyperparameter Tuning", 2020), if it takes at most
        ``MAX_FINE_TUNE_SHARE`` of the trials' time; ``MAX_PROBE_SHARE`` if no other can overtake it and probes lead.
        """
        leads = leader(state.trials, self._num_val_images)
        if leads == "defaults" and state.fraction_used >= LATEST_SWEEP[leads]:
            return None
        has_default = any(trial.is_eligible for trial in _started(state.trials, "default"))
        for params, is_final in self._promotions(state):
            proposal = _first_new("probe", [params], state.trials)
            if proposal is None:
                continue
            max_share = MAX_PROBE_SHARE if is_final and has_default and leads == "probes" else MAX_FINE_TUNE_SHARE
            seconds = SAFETY_FACTOR * self._proposals.seconds(proposal, state.trials)
            if seconds <= state.seconds_left and self._takes_at_most(max_share, proposal, state):
                return proposal
        return None

    def _promotions(self, state: SearchState) -> Iterator[tuple[dict[str, ParamValue], bool]]:
        """Yield the best probes on their next number of images, and whether no other probe can overtake them.

        The first probe that ends on a larger number does not wait for others: more images improve a probe more than
        another network does.
        """
        by_images: dict[int | None, list[TrialRecord]] = {}
        for trial in _started(state.trials, "probe"):
            by_images.setdefault(trial.config.images_per_epoch, []).append(trial)
        is_final = self._sweep_is_over(state) or not self._sweep_left(state.trials)
        for number, probes in enumerate(by_images.values()):
            ended = sorted((probe for probe in probes if probe.status != "running"), key=lambda probe: probe.sort_key)
            is_complete = len(ended) == len(probes)
            is_final = is_final and is_complete
            share = PROMOTED_SHARE * len(ended)
            count = math.ceil(share) if is_final or (number > 0 and is_complete) else int(share)
            for probe in reversed(ended[len(ended) - count :]):
                params = self._space.probe_on_more_images(probe.fixed_params) if probe.is_eligible else None
                if params:
                    yield params, is_final

    def probes_left(self, trials: Sequence[TrialRecord]) -> list[Proposal]:
        """Return the probes that may still start, those of the champion first."""
        return [*self._start_probes(trials), *self._sweep_left(trials)]

    def _sweep_left(self, trials: Sequence[TrialRecord]) -> list[Proposal]:
        return [] if _started(trials, "fine_tune") or _started(trials, "sampler") else self._new_probes(trials)

    def _start_probes(self, trials: Sequence[TrialRecord]) -> list[Proposal]:
        return [start for start in self._new_starts(trials) if start.is_probe]

    def num_dropped_probes(self, trials: Sequence[TrialRecord]) -> int:
        """Return the number of probes that have not started and never will, because the sweep is over."""
        return len(self._new_probes(trials)) - len(self._sweep_left(trials))

    def _new_probes(self, trials: Sequence[TrialRecord]) -> list[Proposal]:
        starts = [start.fixed_params for start in self._start_probes(trials)]
        return [probe for probe in _new("probe", self._space.linear_probes(), trials) if probe.params not in starts]

    def fine_tune(self, state: SearchState) -> Proposal | None:
        """Return a fine-tune of the best probe so far, of which there are at most ``MAX_FINE_TUNES``.

        One may precede the sampler, if it is predicted to take at most ``MAX_FINE_TUNE_SHARE`` of the trials' time.
        """
        best = best_probe(state.trials, self._num_val_images)
        num_started = len(_started(state.trials, "fine_tune"))
        is_sampler_next = len(_started(state.trials, "sampler")) < MIN_SAMPLED
        if best is None or num_started >= (1 if is_sampler_next else MAX_FINE_TUNES) or self._all_trials_started(state):
            return None
        mostly_trained = leader(state.trials, self._num_val_images) == "defaults"
        proposal = _first_new("fine_tune", self._space.fine_tunes(best.settings, mostly_trained), state.trials)
        if proposal is None:
            return None
        if is_sampler_next:
            return proposal if self._takes_at_most(MAX_FINE_TUNE_SHARE, proposal, state) else None
        return proposal if self._proposals.seconds(proposal, state.trials, epochs=1) <= state.seconds_left else None

    def _takes_at_most(self, share: float, proposal: Proposal, state: SearchState) -> bool:
        """Return whether a trial is predicted to take at most a share of the trials' time."""
        if math.isinf(state.seconds_left):
            return True
        total_s = state.seconds_left / max(1 - state.fraction_used, MIN_FRACTION_LEFT)
        return self._proposals.seconds(proposal, state.trials) <= share * total_s

    def sample(self, state: SearchState) -> Proposal | None:
        """Return a trial that the sampler proposes, unless none can end its first epoch in the time left."""
        if self._all_trials_started(state):
            return None
        params = self._proposals.propose(state)
        return None if params is None else Proposal("sampler", params)

    def rerun(self, state: SearchState) -> NextRerun | None:
        """Return a re-run of one of the best trials, if the time suffices."""
        if not self._has_reruns:
            return None

        def has_time_for(trial: TrialRecord, fold: int | None) -> bool:
            return SAFETY_FACTOR * self._proposals.rerun_seconds(trial, fold, state.trials) < state.seconds_left

        return next_rerun(state.trials, self._rerun_plan, self._num_val_images, has_time_for)

    def _all_trials_started(self, state: SearchState) -> bool:
        max_trials = self._recipe.max_trials
        return max_trials is not None and num_counted(state.trials) >= max_trials


def num_counted(trials: Sequence[TrialRecord]) -> int:
    """Return the number of trials without linear probes and re-runs."""
    return sum(trial.counts_as_trial for trial in trials)


def all_failed(trials: Sequence[TrialRecord]) -> bool:
    """Return whether all ended trials have failed, at least ``MAX_INITIAL_FAILURES``."""
    ended = [trial for trial in trials if trial.status != "running"]
    return len(ended) >= MAX_INITIAL_FAILURES and all(trial.status == "failed" for trial in ended)


def has_result(trials: Sequence[TrialRecord]) -> bool:
    """Return whether an epoch or a trial has ended; before that, no time budget ends a search."""
    return any(trial.epochs or trial.status != "running" for trial in trials)


def leader(trials: Sequence[TrialRecord], num_val_images: int) -> Leader:
    """Return which trials have the best score."""
    probes = _scores([trial for trial in trials if trial.is_probe])
    # The champion's configuration counts as a default: it is known to be good.
    defaults = _scores([trial for trial in trials if not trial.is_probe and trial.origin in ("champion", "default")])
    if not probes:
        return "neither"
    if not defaults or max(probes) >= max(defaults):
        return "probes"
    return "defaults" if is_significantly_better(max(defaults), max(probes), num_val_images) else "neither"


def best_probe(trials: Sequence[TrialRecord], num_val_images: int) -> TrialRecord | None:
    """Return the best probe at the smallest image size among those within one standard error of the best.

    The one-standard-error rule of Breiman et al., "Classification and Regression Trees" (1984): a difference that the
    validation images cannot resolve does not justify a higher cost.
    """
    probes = [trial for trial in trials if trial.is_probe and trial.is_eligible]
    if not probes:
        return None
    best_score = max(trial.score or 0.0 for trial in probes)
    min_score = best_score - math.sqrt(best_score * (1 - best_score) / num_val_images)
    comparable = [trial for trial in probes if (trial.score or 0.0) >= min_score]
    smallest = min(trial.config.preprocessing.image_size for trial in comparable)
    return max(
        (trial for trial in comparable if trial.config.preprocessing.image_size == smallest),
        key=lambda trial: trial.sort_key,
    )


def _scores(trials: Sequence[TrialRecord]) -> list[float]:
    return [trial.score or 0.0 for trial in trials if trial.is_eligible]


def _started(trials: Sequence[TrialRecord], origin: TrialOrigin) -> list[TrialRecord]:
    return [trial for trial in trials if trial.origin == origin]


def _new(
    origin: TrialOrigin, candidates: Sequence[Mapping[str, ParamValue]], trials: Sequence[TrialRecord]
) -> list[Proposal]:
    """Return the proposals of an origin that have not started, also not as the champion's configuration."""
    started = [trial.fixed_params for trial in trials if trial.origin in (origin, "champion")]
    return [Proposal(origin, params) for params in candidates if params not in started]


def _first_new(
    origin: TrialOrigin, candidates: Sequence[Mapping[str, ParamValue]], trials: Sequence[TrialRecord]
) -> Proposal | None:
    return next(iter(_new(origin, candidates, trials)), None)


class PhaseUsage(NamedTuple):
    """What a phase has used: its trials and the seconds of their epochs."""

    name: PhaseName
    latest_start: float
    num_trials: int
    seconds: float


def phase_usage(trials: Sequence[TrialRecord]) -> list[PhaseUsage]:
    """Return the usage of each phase that has started a trial, in order; warm-up probes precede the default."""
    default_number = next((trial.number for trial in _started(trials, "default")), math.inf)
    by_phase: dict[PhaseName, list[TrialRecord]] = {name: [] for name in LATEST_START}
    for trial in trials:
        is_warmup = trial.origin == "probe" and trial.number < default_number
        by_phase["warm-up probes" if is_warmup else PHASE_OF_ORIGIN[trial.origin]].append(trial)
    return [
        PhaseUsage(name, LATEST_START[name], len(started), sum(trial.seconds for trial in started))
        for name, started in by_phase.items()
        if started
    ]
