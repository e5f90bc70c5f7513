"""Samplers by name; they propose the settings of the next trial.

Each is a sampler of Optuna, created for every trial with a seed derived from the search's seed and the trial's number,
which sees a subset of the study. Therefore a resumed search proposes the same trials as an uninterrupted one, failed
trials can be presented as the worst ones, and a proposal costs the same at trial 10,000 as at trial 1,000.
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

NUM_STARTUP_TRIALS = 5  # random trials before TPE fits a model; Optuna's 10 would be most of a small search
INFRASTRUCTURE_FAILURE = "infrastructure_failure"  # user attribute: the trial's settings did not cause its failure

# TPE models the best trials that it sees as good: a tenth of them, at most 25 (Optuna's default_gamma). With the 25
# best trials in a window of at least 250, its good trials are the same as with all trials, and its bad trials are a
# sample of all bad trials. benchmarks/samplers.py compares the regret.
NUM_BEST, NUM_RECENT, NUM_RANDOM = 25, 100, 150  # finished trials in the window
MAX_FAILED_RATIO = 9  # failed trials in the window per other trial, so that none is in the best tenth
NUM_RECENT_RUNNING, NUM_RANDOM_RUNNING = 25, 50  # running trials in the window, for TPE's constant liar
SUBSET_STUDY_NAME = "window"


def build_sampler(name: SamplerName, seed: int) -> BaseSampler:
    """Return the sampler with this name for a search with this seed."""
    return SAMPLERS[name](seed)


class WindowedSampler(BaseSampler):
    """Samples each trial with a newly created sampler that sees a subset of the study.

    Its proposals depend only on the seed, the trial's number and the study's trials. It does not change the study, and
    must be used with one study only.
    """

    def __init__(
        self, seed: int, make_sampler: Callable[[int], BaseSampler], window: TrialWindow | None = None
    ) -> None:
        """Create the sampler.

        Args:
            seed: of the search.
            make_sampler: creates a sampler from a seed.
            window: selects the visible trials; None: no trial is visible.
        """
        self._seed = seed
        self._make_sampler = make_sampler
        self._window = window
        self._storage = _SubsetStorage()
        self._storage.create_new_study([StudyDirection.MAXIMIZE], SUBSET_STUDY_NAME)
        # Both are set for each trial by infer_relative_search_space, which Optuna calls first.
        self._sampler: BaseSampler
        self._subset: Study

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Update the subset of the study; return the distributions of the parameters that are sampled jointly."""
        self._refresh(study, trial)
        return self._sampler.infer_relative_search_space(self._subset, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a value for each parameter of the search space."""
        del study
        return self._sampler.sample_relative(self._subset, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401  # as in Optuna's interface
        """Return a value for a parameter outside the relative search space."""
        del study
        return self._sampler.sample_independent(self._subset, trial, param_name, param_distribution)

    def _refresh(self, study: Study, trial: FrozenTrial) -> None:
        sampler_seed, window_seed = np.random.SeedSequence((self._seed, trial.number)).spawn(2)
        if self._window is not None:
            self._window.update(study.get_trials(deepcopy=False))
            self._storage.trials = self._window.select(np.random.default_rng(window_seed), exclude=trial.number)
        self._sampler = self._make_sampler(int(sampler_seed.generate_state(1)[0]))
        self._subset = optuna.load_study(study_name=SUBSET_STUDY_NAME, storage=self._storage, sampler=self._sampler)


class _SubsetStorage(InMemoryStorage):
    """A read-only storage whose trials are set from outside."""

    trials: Sequence[FrozenTrial] = ()

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        del study_id, deepcopy
        return [trial for trial in self.trials if states is None or trial.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:  # noqa: ANN401
        """Do nothing: TPE shares its proposals with other processes, and there are none."""


def _tpe(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(
            seed=seed,
            n_startup_trials=NUM_STARTUP_TRIALS,
            multivariate=True,
            group=True,  # model conditional parameters (such as sgd_lr) only among the trials that have them
            constant_liar=True,
        )


def _random(seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


# Factory of each ``SamplerName`` from a search's seed. Samplers that use earlier trials get a ``TrialWindow``.
SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: WindowedSampler(seed, _tpe, TrialWindow()),
    "random": lambda seed: WindowedSampler(seed, _random),
}


class TrialWindow:
    """Selects the trials of a study that a sampler sees; its sorted state is kept between proposals.

    An ended trial never changes, so only trials that had not ended are read again: reading 10,000 trials takes longer
    than a proposal.
    """

    def __init__(self) -> None:
        self._trials: Sequence[FrozenTrial] = ()  # by number
        self._open: list[int] = []  # numbers of trials that have not ended, ascending as in all lists below
        self._ranked: list[tuple[tuple[bool, int, float], int]] = []  # complete and pruned trials, best first
        self._failed: list[int] = []  # failed because of their settings
        self._ended: list[int] = []  # the trials of both lists above

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Read the current state of all trials of the study, ordered by number."""
        changed = [*self._open, *range(len(self._trials), len(trials))]
        self._trials = trials
        self._open = [number for number in changed if not trials[number].state.is_finished()]
        for number in changed:
            trial = trials[number]
            if trial.state in {TrialState.COMPLETE, TrialState.PRUNED}:
                bisect.insort(self._ranked, (_sort_key(trial), number))
                bisect.insort(self._ended, number)
            elif trial.state is TrialState.FAIL and not trial.user_attrs.get(INFRASTRUCTURE_FAILURE):
                bisect.insort(self._failed, number)
                bisect.insort(self._ended, number)

    def select(self, generator: np.random.Generator, exclude: int | None = None) -> list[FrozenTrial]:
        """Return the best, the most recent and some random trials, ordered by number.

        A trial that failed because of its settings is returned as pruned before its first epoch, the worst result for
        TPE, which ignores failed trials. Infrastructure failures are left out.

        Args:
            generator: for the random trials.
            exclude: number of the trial that is being sampled.
        """
        if not self._ranked:
            return [self._trials[number] for number in self._running(generator, exclude)]
        best = {number for _, number in self._ranked[:NUM_BEST]}
        excluded = best.union(self._failed[: -MAX_FAILED_RATIO * len(self._ranked)])
        ended = _subsample(self._ended, NUM_RECENT, NUM_RANDOM, excluded, generator)
        numbers = sorted((*best, *ended, *self._running(generator, exclude)))
        return [_as_pruned(self._trials[number]) for number in numbers]

    def _running(self, generator: np.random.Generator, exclude: int | None) -> list[int]:
        running = [number for number in self._open if self._trials[number].state is TrialState.RUNNING]
        excluded = set() if exclude is None else {exclude}
        return sorted(_subsample(running, NUM_RECENT_RUNNING, NUM_RANDOM_RUNNING, excluded, generator))


def _sort_key(trial: FrozenTrial) -> tuple[bool, int, float]:
    """Return TPE's sort key, best first: complete trials by value, then pruned ones by epochs and value."""
    if trial.state is TrialState.COMPLETE:
        return False, 0, -(trial.value or 0.0)
    step = trial.last_step
    return True, -(step or 0), -(trial.intermediate_values[step] if step is not None else -math.inf)


def _as_pruned(trial: FrozenTrial) -> FrozenTrial:
    """Return a failed trial as one that was pruned before its first epoch, and any other trial unchanged."""
    if trial.state is not TrialState.FAIL:
        return trial
    pruned = copy(trial)
    pruned.state, pruned.values, pruned.intermediate_values = TrialState.PRUNED, None, {}
    return pruned


def _subsample(
    numbers: Sequence[int], num_recent: int, num_random: int, excluded: set[int], generator: np.random.Generator
) -> list[int]:
    """Return the most recent numbers and a random sample of the others, without the excluded ones."""
    selected: list[int] = []
    end = len(numbers)
    while end and len(selected) < num_recent:
        end -= 1
        if numbers[end] not in excluded:
            selected.append(numbers[end])
    indices = generator.choice(end, size=min(end, num_random + len(excluded)), replace=False)
    older = (numbers[int(index)] for index in indices)
    return selected + list(itertools.islice((number for number in older if number not in excluded), num_random))
