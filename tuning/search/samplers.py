"""Samplers by name; they propose the settings of the next trial.

Each is a sampler of Optuna, created for every trial with a seed derived from the search's seed and the trial's number,
and sees a study in memory in which failed trials are the worst ones. Therefore a resumed search proposes the same
trials as an uninterrupted one, and learns where trials fail.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Container, Sequence
from copy import copy
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tuning.recipe.schema import SamplerName

NUM_STARTUP_TRIALS = 5  # random trials before TPE fits a model; Optuna's 10 would be most of a small search
INFRASTRUCTURE_FAILURE = "infrastructure_failure"  # user attribute: the trial's settings did not cause its failure
# Failed trials that the sampler sees per other ended trial: TPE models the best tenth of the ended trials as good.
MAX_FAILED_RATIO = 9


def build_sampler(name: SamplerName, seed: int) -> BaseSampler:
    """Return the sampler with this name for a search with this seed."""
    return PerTrialSampler(seed, SAMPLERS[name])


class PerTrialSampler(BaseSampler):
    """Samples each trial with a new sampler, which sees the study's ``visible_trials``.

    Its proposals depend only on the seed, the trial's number and the study's trials. It does not change the study.
    """

    def __init__(self, seed: int, make_sampler: Callable[[int], BaseSampler]) -> None:
        """Take the seed of the search, and a function that creates a sampler from a seed."""
        self._seed = seed
        self._make_sampler = make_sampler

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Create the trial's sampler; return the distributions of the parameters that are sampled jointly.

        Optuna calls this method first for each trial.
        """
        seed = np.random.SeedSequence((self._seed, trial.number)).spawn(1)[0].generate_state(1)[0]
        self._sampler = self._make_sampler(int(seed))
        storage = _VisibleTrials(visible_trials(study.get_trials(deepcopy=False)))
        self._visible_study = optuna.create_study(storage=storage, directions=study.directions)
        return self._sampler.infer_relative_search_space(self._visible_study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a value for each parameter of the search space."""
        del study
        return self._sampler.sample_relative(self._visible_study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401  # as in Optuna's interface
        """Return a value for a parameter outside the relative search space."""
        del study
        return self._sampler.sample_independent(self._visible_study, trial, param_name, param_distribution)


class _VisibleTrials(InMemoryStorage):
    """A read-only storage of given trials, which keep their numbers."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._visible = trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        del study_id, deepcopy
        return [trial for trial in self._visible if states is None or trial.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:  # noqa: ANN401
        """Do nothing: TPE shares its proposals with other processes, and there are none."""


def visible_trials(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that a sampler sees, ordered by number.

    A trial that failed because of its settings is returned as pruned before its first epoch, the worst result for TPE,
    which ignores failed trials. Infrastructure failures are left out, and so are the oldest failures if the best tenth
    of the ended trials would include some.
    """
    num_ok = sum(trial.state in {TrialState.COMPLETE, TrialState.PRUNED} for trial in trials)
    failed = [
        trial.number
        for trial in trials
        if trial.state is TrialState.FAIL and not trial.user_attrs.get(INFRASTRUCTURE_FAILURE)
    ]
    visible = set(failed[max(0, len(failed) - MAX_FAILED_RATIO * num_ok) :])
    return [
        _as_pruned(trial) if trial.number in visible else trial
        for trial in trials
        if trial.state is not TrialState.FAIL or trial.number in visible
    ]


def _as_pruned(trial: FrozenTrial) -> FrozenTrial:
    pruned = copy(trial)
    pruned.state, pruned.values, pruned.intermediate_values = TrialState.PRUNED, None, {}
    return pruned


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


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {"tpe": _tpe, "random": RandomSampler}  # from a seed
