"""Samplers by name: what proposes the settings of the next trial.

Each is one of Optuna's own, made anew for every trial with a seed that follows from the search's seed and the trial's
number, and shown a view of the study instead of the study itself. So a resumed search proposes what one that was never
interrupted would; failed trials can be shown as what they are, the worst; and a proposal costs the same at trial
10,000 as at trial 1,000.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Container, Sequence
from copy import copy
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

SamplerName = Literal["tpe", "random"]
STARTUP_TRIALS = 5  # asked at random before TPE models what it saw; Optuna's 10 is most of a small search
BLAMELESS = "blameless"  # a user attribute of a failed trial: its settings had no part in its failure

# TPE takes the best of the trials that it sees for good: a tenth of them, at most 25 (Optuna's default_gamma). With
# these 25, and no less than 250 in all, what it takes for good is what it would among all trials, and what it takes
# for bad is a sample of it. benchmarks/samplers.py compares the regret.
BEST, NEWEST, OTHERS = 25, 125, 250  # finished trials in view
FAILED_FOR_GOOD = 9  # failed trials in view for each that didn't fail, so that none is among the best tenth
PENDING_NEWEST, PENDING_OTHERS = 100, 100  # running trials in view, which repel the next (the constant liar)

View = Callable[[Sequence[FrozenTrial], np.random.Generator], list[FrozenTrial]]


def build_sampler(name: SamplerName, seed: int) -> BaseSampler:
    """Return the sampler called ``name`` of a search with this seed."""
    return ViewingSampler(seed, _tpe, visible) if name == "tpe" else ViewingSampler(seed, _random, _nothing)


class ViewingSampler(BaseSampler):
    """Lets a sampler that is made anew for each trial propose from a view of the study.

    What it proposes follows from the seed, the trial's number and the study's trials alone. It changes nothing in the
    study, and keeps nothing from one trial to the next.
    """

    def __init__(self, seed: int, make: Callable[[int], BaseSampler], view: View) -> None:
        """Take the search's seed, what makes a sampler of a seed, and what it sees of a study's trials."""
        self._seed = seed
        self._make = make
        self._view = view
        self._sampler: BaseSampler  # of the trial at hand, and what it sees: Optuna asks for the search space first
        self._seen: Study

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """See the study as it is now; return the settings that are proposed together."""
        self._look(study, trial)
        return self._sampler.infer_relative_search_space(self._seen, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a value for each setting of the search space."""
        del study
        return self._sampler.sample_relative(self._seen, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401  # as in Optuna's interface
        """Return a value for one setting that no trial in view has."""
        del study
        return self._sampler.sample_independent(self._seen, trial, param_name, param_distribution)

    def _look(self, study: Study, trial: FrozenTrial) -> None:
        state, subset = np.random.SeedSequence((self._seed, trial.number)).spawn(2)
        others = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        storage = _Seen(self._view(others, np.random.default_rng(subset)))
        study_id = storage.create_new_study([StudyDirection.MAXIMIZE])
        self._sampler = self._make(int(state.generate_state(1)[0]))
        self._seen = optuna.load_study(
            study_name=storage.get_study_name_from_id(study_id), storage=storage, sampler=self._sampler
        )


class _Seen(InMemoryStorage):
    """A storage that holds given trials, to be read only."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._seen = trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        del study_id, deepcopy
        return [trial for trial in self._seen if states is None or trial.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:  # noqa: ANN401
        """Do nothing: TPE tells other processes what it proposes, and ours is the only one."""


def _tpe(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(
            seed=seed,
            n_startup_trials=STARTUP_TRIALS,
            multivariate=True,
            group=True,  # settings that only some trials have (SGD's rate) are modelled among those that have them
            constant_liar=True,
        )


def _random(seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


def _nothing(trials: Sequence[FrozenTrial], generator: np.random.Generator) -> list[FrozenTrial]:
    del trials, generator
    return []


def visible(trials: Sequence[FrozenTrial], generator: np.random.Generator) -> list[FrozenTrial]:
    """Return what TPE sees of a study, by number: the best, the newest and others drawn at random.

    A trial that failed of its own settings is shown as pruned before its first epoch, which is the worst that there
    is to TPE; it takes no notice of those that are FAIL. One whose settings are not to blame is left out.
    """
    good = [trial for trial in trials if trial.state in {TrialState.COMPLETE, TrialState.PRUNED}]
    failed = [trial for trial in trials if trial.state is TrialState.FAIL and not trial.user_attrs.get(BLAMELESS)]
    pending = [trial for trial in trials if trial.state is TrialState.RUNNING]
    ranked = sorted(good, key=_rank)
    seen = ranked[:BEST]
    bad = [_as_worst(trial) for trial in failed[-FAILED_FOR_GOOD * len(good) :]] if good else []
    rest = sorted((*ranked[BEST:], *bad), key=lambda trial: trial.number)
    seen += _thinned(rest, NEWEST, OTHERS, generator)
    seen += _thinned(pending, PENDING_NEWEST, PENDING_OTHERS, generator)
    return sorted(seen, key=lambda trial: trial.number)


def _rank(trial: FrozenTrial) -> tuple[bool, int, float]:
    """Return what TPE orders trials by, the best first: complete by value, then pruned by epochs and value."""
    if trial.state is TrialState.COMPLETE:
        return False, 0, -(trial.value or 0.0)
    step = trial.last_step
    return True, -(step or 0), -(trial.intermediate_values[step] if step is not None else -math.inf)


def _as_worst(trial: FrozenTrial) -> FrozenTrial:
    shown = copy(trial)
    shown.state, shown.values, shown.intermediate_values = TrialState.PRUNED, None, {}
    return shown


def _thinned(
    trials: Sequence[FrozenTrial], newest: int, others: int, generator: np.random.Generator
) -> list[FrozenTrial]:
    """Return the newest of the trials, and so many others at random."""
    older, kept = trials[: max(0, len(trials) - newest)], list(trials[-newest:])
    drawn = generator.choice(len(older), size=min(others, len(older)), replace=False)
    return kept + [older[int(at)] for at in drawn]
