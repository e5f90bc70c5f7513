"""Samplers by name: what proposes the settings of the next trial.

Each is one of Optuna's own, made anew for every trial with a seed that follows from the search's seed and the trial's
number, and shown a view of the study instead of the study itself. So a resumed search proposes what one that was never
interrupted would; failed trials can be shown as what they are, the worst; and a proposal costs the same at trial
10,000 as at trial 1,000.
"""

from __future__ import annotations

import bisect
import itertools
import math
import warnings
from collections.abc import Callable, Container, Sequence
from copy import copy
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tuning.recipe.schema import SamplerName

NUM_STARTUP_TRIALS = 5  # asked at random before TPE models what it saw; Optuna's 10 is most of a small search
INFRASTRUCTURE_FAILURE = "blameless"  # a user attribute of a failed trial: its settings had no part in its failure

# TPE takes the best of the trials that it sees for good: a tenth of them, at most 25 (Optuna's default_gamma). With
# these 25, and no less than 250 in all, what it takes for good is what it would among all trials, and what it takes
# for bad is a sample of it. benchmarks/samplers.py compares the regret.
NUM_BEST, NUM_RECENT, NUM_RANDOM = 25, 100, 150  # finished trials in view
MAX_FAILED_RATIO = 9  # failed trials in view for each that didn't fail, so that none is among the best tenth
NUM_RECENT_RUNNING, NUM_RANDOM_RUNNING = 25, 50  # running trials in view, which repel the next (the constant liar)
SUBSET_STUDY_NAME = "seen"  # the name of the study that a view is shown as


def build_sampler(name: SamplerName, seed: int) -> BaseSampler:
    """Return the sampler called ``name`` of a search with this seed."""
    return SAMPLERS[name](seed)


class WindowedSampler(BaseSampler):
    """Lets a sampler that is made anew for each trial propose from a view of the study.

    What it proposes follows from the seed, the trial's number and the study's trials alone. It changes nothing in the
    study, and is for one study.
    """

    def __init__(
        self, seed: int, make_sampler: Callable[[int], BaseSampler], window: TrialWindow | None = None
    ) -> None:
        """Take the search's seed, what makes a sampler of a seed, and whose view it sees; without, it sees no trial."""
        self._seed = seed
        self._make_sampler = make_sampler
        self._window = window
        self._storage = _SubsetStorage()
        self._storage.create_new_study([StudyDirection.MAXIMIZE], SUBSET_STUDY_NAME)
        self._sampler: BaseSampler  # of the trial at hand, and what it sees: Optuna asks for the search space first
        self._subset: Study

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """See the study as it is now; return the settings that are proposed together."""
        self._refresh(study, trial)
        return self._sampler.infer_relative_search_space(self._subset, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a value for each setting of the search space."""
        del study
        return self._sampler.sample_relative(self._subset, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401  # as in Optuna's interface
        """Return a value for one setting that no trial in view has."""
        del study
        return self._sampler.sample_independent(self._subset, trial, param_name, param_distribution)

    def _refresh(self, study: Study, trial: FrozenTrial) -> None:
        state, subset = np.random.SeedSequence((self._seed, trial.number)).spawn(2)
        if self._window is not None:
            self._window.update(study.get_trials(deepcopy=False))
            self._storage.trials = self._window.select(np.random.default_rng(subset), exclude=trial.number)
        self._sampler = self._make_sampler(int(state.generate_state(1)[0]))
        self._subset = optuna.load_study(study_name=SUBSET_STUDY_NAME, storage=self._storage, sampler=self._sampler)


class _SubsetStorage(InMemoryStorage):
    """A storage whose trials are those that it is given, to be read only."""

    trials: Sequence[FrozenTrial] = ()

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        del study_id, deepcopy
        return [trial for trial in self.trials if states is None or trial.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:  # noqa: ANN401
        """Do nothing: TPE tells other processes what it proposes, and ours is the only one."""


def _tpe(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(
            seed=seed,
            n_startup_trials=NUM_STARTUP_TRIALS,
            multivariate=True,
            group=True,  # settings that only some trials have (SGD's rate) are modelled among those that have them
            constant_liar=True,
        )


def _random(seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


# What each name of ``SamplerName`` makes of a search's seed. One that learns gets a ``History``, one that doesn't none.
SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: WindowedSampler(seed, _tpe, TrialWindow()),
    "random": lambda seed: WindowedSampler(seed, _random),
}


class TrialWindow:
    """A study's trials in the orders that a view needs, kept from one proposal to the next.

    A trial that has ended never changes, so only those that had not are looked at again: a look through 10,000 trials
    takes longer than a proposal.
    """

    def __init__(self) -> None:
        self._trials: Sequence[FrozenTrial] = ()  # by number
        self._open: list[int] = []  # numbers of those that had not ended, in their order, as all lists below
        self._ranked: list[tuple[tuple[bool, int, float], int]] = []  # of those that didn't fail, the best first
        self._failed: list[int] = []  # of their own settings
        self._ended: list[int] = []  # both

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Take all trials of the study by number, as they are now."""
        looked_at = [*self._open, *range(len(self._trials), len(trials))]
        self._trials = trials
        self._open = [number for number in looked_at if not trials[number].state.is_finished()]
        for number in looked_at:
            trial = trials[number]
            if trial.state in {TrialState.COMPLETE, TrialState.PRUNED}:
                bisect.insort(self._ranked, (_sort_key(trial), number))
                bisect.insort(self._ended, number)
            elif trial.state is TrialState.FAIL and not trial.user_attrs.get(INFRASTRUCTURE_FAILURE):
                bisect.insort(self._failed, number)
                bisect.insort(self._ended, number)

    def select(self, generator: np.random.Generator, exclude: int | None = None) -> list[FrozenTrial]:
        """Return what TPE sees of the study, by number: the best, the newest and others drawn at random.

        A trial that failed of its own settings is shown as pruned before its first epoch, which is the worst that there
        is to TPE; it takes no notice of those that are FAIL. One whose settings are not to blame is left out, and so is
        the trial ``but``, which is being asked for.
        """
        if not self._ranked:
            return [self._trials[number] for number in self._running(generator, exclude)]
        best = {number for _, number in self._ranked[:NUM_BEST]}
        hidden = best.union(self._failed[: -MAX_FAILED_RATIO * len(self._ranked)])
        seen = sorted(
            (
                *best,
                *_subsample(self._ended, NUM_RECENT, NUM_RANDOM, hidden, generator),
                *self._running(generator, exclude),
            )
        )
        return [_as_pruned(self._trials[number]) for number in seen]

    def _running(self, generator: np.random.Generator, but: int | None) -> list[int]:
        running = [number for number in self._open if self._trials[number].state is TrialState.RUNNING]
        hidden = set() if but is None else {but}
        return sorted(_subsample(running, NUM_RECENT_RUNNING, NUM_RANDOM_RUNNING, hidden, generator))


def _sort_key(trial: FrozenTrial) -> tuple[bool, int, float]:
    """Return what TPE orders trials by, the best first: complete by value, then pruned by epochs and value."""
    if trial.state is TrialState.COMPLETE:
        return False, 0, -(trial.value or 0.0)
    step = trial.last_step
    return True, -(step or 0), -(trial.intermediate_values[step] if step is not None else -math.inf)


def _as_pruned(trial: FrozenTrial) -> FrozenTrial:
    if trial.state is not TrialState.FAIL:
        return trial
    shown = copy(trial)
    shown.state, shown.values, shown.intermediate_values = TrialState.PRUNED, None, {}
    return shown


def _subsample(
    numbers: Sequence[int], newest: int, others: int, hidden: set[int], generator: np.random.Generator
) -> list[int]:
    """Return the newest of the numbers, and so many others at random, all but the hidden ones."""
    kept: list[int] = []
    at = len(numbers)
    while at and len(kept) < newest:
        at -= 1
        if numbers[at] not in hidden:
            kept.append(numbers[at])
    drawn = generator.choice(at, size=min(at, others + len(hidden)), replace=False)
    older = (numbers[int(place)] for place in drawn)
    return kept + list(itertools.islice((number for number in older if number not in hidden), others))
