"""Cost-aware proposals: of several candidates of the sampler, the one with the highest expected improvement per cost.

The cost of a candidate is predicted before it runs (``models.profiling.training_cost``). It counts fully at first and
not at all at the end of the budget ("cost cooling": Lee et al., "Cost-aware Bayesian Optimization", 2020): while time
is short, many cheap trials show more than one expensive trial; later, every trial can be proposed. Measured seconds
decide which candidates fit: into the time left, and for the first proposals into an equal share of it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from models.profiling.training_cost import Images, TrainingCosts, trains_a_block
from models.trial_config import TrialConfig
from tuning.common.option_types import ParamValue
from tuning.common.trial_record import TrialRecord
from tuning.search.defaults import MIN_SAMPLED
from tuning.search.strategy import Proposal, SearchState

NUM_CANDIDATES = 256  # for each proposal of the sampler
MIN_TRAINED_SHARE = 0.5  # of the sampler's trials train a block, if any candidate does: heads alone are the cheapest
MAX_MODELED_TRIALS = 512_000  # of all candidates together: with more trials there are fewer, and a proposal stays fast
EXPECTED_EPOCHS = 0.5  # of max_epochs: the scheduler stops most trials before
MAX_MEASURED = 100  # last trials whose seconds are compared with their costs
COOLING_START = 0.3  # fraction of the trials' time that the probes may use; the cost counts fully until then


class CandidateTrial(NamedTuple):
    """A proposal of the sampler for the next trial: its parameters and its configuration.

    ``log_improvement`` is the logarithm of the expected improvement, up to a constant.
    """

    params: Mapping[str, ParamValue]
    config: TrialConfig
    log_improvement: float


class CandidateSource(Protocol):
    """The part of the trial store that proposals need."""

    def candidates(self, count: int) -> Sequence[CandidateTrial]:
        """Return ``count`` proposals for the next trial, which depend only on the seed and the trials so far."""

    def config_of(self, proposal: Proposal) -> TrialConfig:
        """Return the configuration of a proposal, whose parameters are complete."""


def cost_exponent(fraction_used: float) -> float:
    """Return the exponent of the cost: 1 until ``COOLING_START``, then falling to 0 at the end of the time."""
    return min(1.0, max(0.0, (1 - fraction_used) / (1 - COOLING_START)))


class CostAwareProposals:
    """Chooses the sampler's proposals, and predicts the seconds of trials from those that have run.

    Without a time budget the first candidate is proposed, the sampler's own: a budget in trials costs the same whatever
    a trial costs.
    """

    def __init__(self, source: CandidateSource, num_train_images: int, num_val_images: int) -> None:
        self._source = source
        self._costs = TrainingCosts(Images(num_train_images, num_val_images))
        self._added_epochs: dict[str, int] = {}  # by the uid of a trial
        self._candidates: Sequence[CandidateTrial] = ()
        self._candidates_of: object = None

    def propose(self, state: SearchState) -> Mapping[str, ParamValue] | None:
        """Return the parameters of the sampler's next trial; empty: the sampler decides; None: no candidate fits."""
        if math.isinf(state.seconds_left):
            return {}
        self._add_costs(state.trials)
        costs, rate = self._costs, self._seconds_per_gflop(state.trials)
        exponent = cost_exponent(state.fraction_used)

        def first_epoch_s(candidate: CandidateTrial) -> float:
            return rate * costs.gflops(candidate.config, epochs=1)

        def expected_s(candidate: CandidateTrial) -> float:
            epochs = max(1, round(EXPECTED_EPOCHS * candidate.config.fit.max_epochs))
            return rate * costs.gflops(candidate.config, epochs)

        def log_score(candidate: CandidateTrial) -> float:
            cost = costs.gflops(candidate.config, candidate.config.fit.max_epochs)
            return candidate.log_improvement - exponent * math.log(cost)

        candidates = [each for each in self._next_candidates(state.trials) if first_epoch_s(each) <= state.seconds_left]
        if _must_train(state.trials):
            candidates = [each for each in candidates if trains_a_block(each.config)] or candidates
        if not candidates:
            return None
        limit_s = max(_share_s(state), min(map(expected_s, candidates)))
        return max((each for each in candidates if expected_s(each) <= limit_s), key=log_score).params

    def seconds(self, proposal: Proposal, trials: Sequence[TrialRecord], epochs: int | None = None) -> float:
        """Return the predicted seconds of a trial or its first epochs; 0 before any trial has been measured."""
        config = self._source.config_of(proposal)
        self._add_costs(trials)
        return self._seconds_per_gflop(trials) * self._costs.gflops(config, epochs or config.fit.max_epochs)

    def rerun_seconds(self, trial: TrialRecord, fold: int | None, trials: Sequence[TrialRecord]) -> float:
        """Return the predicted seconds of a re-run: those of the trial, with the features that are missing now."""
        self._add_costs(trials)
        rerun = trial.config.model_copy(update={"fold": fold})
        ratio = self._costs.gflops(rerun, trial.epochs) / self._costs.gflops(trial.config, trial.epochs, trial.number)
        return trial.wall_s * ratio

    def _next_candidates(self, trials: Sequence[TrialRecord]) -> Sequence[CandidateTrial]:
        """Return the candidates of the next trial, which change only when a trial starts or ends."""
        key = [(trial.trial_uid, trial.status) for trial in trials]
        if key != self._candidates_of:
            count = min(NUM_CANDIDATES, MAX_MODELED_TRIALS // max(1, len(trials)))
            self._candidates, self._candidates_of = self._source.candidates(max(1, count)), key
        return self._candidates

    def _add_costs(self, trials: Sequence[TrialRecord]) -> None:
        """Add the features that the trials have cached since the last call."""
        for trial in trials:
            if trial.epochs > self._added_epochs.get(trial.trial_uid, 0):
                self._costs.add(trial.config, trial.epochs, trial.number)
                self._added_epochs[trial.trial_uid] = trial.epochs

    def _seconds_per_gflop(self, trials: Sequence[TrialRecord]) -> float:
        """Return the median over the last trials with gradient steps that have ended an epoch, or over the probes.

        It is 0 before any epoch has ended. The predicted cost of a probe contains neither its fits nor that an earlier
        search may have cached its features, so probes count only while there is nothing better.
        """
        measured = [trial for trial in trials if trial.epochs and trial.origin != "rerun"]
        trained = [trial for trial in measured if not trial.config.is_probe]
        rates = [
            trial.wall_s / self._costs.gflops(trial.config, trial.epochs, trial.number)
            for trial in (trained or measured)[-MAX_MEASURED:]
        ]
        return statistics.median(rates or [0.0])


def _share_s(state: SearchState) -> float:
    """Return the seconds that the next trial is expected to take at most, so that ``MIN_SAMPLED`` trials can end."""
    num_left = MIN_SAMPLED - sum(trial.origin == "sampler" for trial in state.trials)
    return state.seconds_left / num_left if num_left > 0 else math.inf


def _must_train(trials: Sequence[TrialRecord]) -> bool:
    """Return whether the sampler's next trial must train a block, so that at least half of them do."""
    sampled = [trains_a_block(trial.config) for trial in trials if trial.origin == "sampler"]
    return sum(sampled) < MIN_TRAINED_SHARE * (len(sampled) + 1)
