"""Samplers by name; they propose the settings of the next trial.

Each is a sampler of Optuna, created for every trial with a seed derived from the search's seed and the trial's number,
and sees a study in memory in which failed trials are the worst ones. Therefore a resumed search proposes the same
trials as an uninterrupted one, and learns where trials fail.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuning.common.option_types import ParamValue
from tuning.recipe.schema import SamplerName

NUM_STARTUP_TRIALS = 5  # random trials before TPE fits a model; Optuna's 10 would be most of a small search
INFRASTRUCTURE_FAILURE = "infrastructure_failure"  # user attribute: the trial's settings did not cause its failure
# Failed trials that the sampler sees per other ended trial: TPE models the best tenth of the ended trials as good.
MAX_FAILED_RATIO = 9
GOOD_FRACTION = 0.1  # gamma: the fraction of the ended trials that TPE models as good


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
        self._sampler = self._make_sampler(next(self._seeds(trial.number, 1)))
        self._visible_study = _visible_study(study)
        return self._sampler.infer_relative_search_space(self._visible_study, trial)

    def candidates(self, study: Study, count: int) -> list[Candidate]:
        """Return ``count`` proposals for the study's next trial.

        Those of TPE are the samples of one model, of which TPE itself would take the best; those of another sampler
        have their own seeds.
        """
        number, visible_study = len(study.get_trials(deepcopy=False)), _visible_study(study)
        seeds = list(self._seeds(number, count))
        sampler = self._make_sampler(seeds[0])
        if isinstance(sampler, ScoringTPESampler):
            sampler.draw(count)
            model = _Model(sampler, visible_study, number)
            return [Candidate(model, index) for index in range(count)]
        return [Candidate(_Model(self._make_sampler(seed), visible_study, number), 0) for seed in seeds]

    def _seeds(self, number: int, count: int) -> Iterator[int]:
        """Yield seeds for the trial with a number."""
        for sequence in np.random.SeedSequence((self._seed, number)).spawn(count):
            yield int(sequence.generate_state(1)[0])

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


class _Model:
    """A sampler for one trial, and the samples that it has drawn."""

    def __init__(self, sampler: BaseSampler, study: Study, number: int) -> None:
        self._sampler, self._study = sampler, study
        self._trial = create_trial(state=TrialState.RUNNING)
        self._trial.number = number
        self._space = sampler.infer_relative_search_space(study, self._trial)
        self._relative = sampler.sample_relative(study, self._trial, self._space)

    def sample(self, name: str, distribution: BaseDistribution, index: int) -> tuple[Any, Samples | None]:
        """Return the sample of a parameter with an index, and the samples that it is one of, if there are several."""
        samples = self._samples(name) if self._space.get(name, distribution) == distribution else None
        if samples is None and self._space.get(name) == distribution and name in self._relative:
            return self._relative[name], None
        if samples is None:
            value = self._sampler.sample_independent(self._study, self._trial, name, distribution)
            samples = self._samples(name)
            if samples is None:
                return value, None
        return distribution.to_external_repr(samples.values[name][index].item()), samples

    def _samples(self, name: str) -> Samples | None:
        return self._sampler.samples.get(name) if isinstance(self._sampler, ScoringTPESampler) else None


class Candidate:
    """A proposal that is not in the study: it samples parameters like an ``optuna.Trial``, and keeps them.

    Attributes:
        params: the values so far.
    """

    def __init__(self, model: _Model, index: int) -> None:
        self._model, self._index = model, index
        self._log_ratios: dict[frozenset[str], float] = {}  # by the names of parameters that were sampled together
        self.params: dict[str, ParamValue] = {}

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return a number from ``low`` to ``high``."""
        return float(self._suggest(name, FloatDistribution(low, high, log=log)))

    def suggest_categorical(self, name: str, choices: Any, /) -> Any:  # noqa: ANN401  # as in Optuna
        """Return one of ``choices``."""
        return self._suggest(name, CategoricalDistribution(choices))

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:  # noqa: ANN401
        if name not in self.params:
            self.params[name] = self._sample(name, distribution)
        return self.params[name]

    def _sample(self, name: str, distribution: BaseDistribution) -> Any:  # noqa: ANN401
        if distribution.single():
            return distribution.to_external_repr(_single_value(distribution))
        value, samples = self._model.sample(name, distribution, self._index)
        if samples is not None:
            self._log_ratios[frozenset(samples.values)] = float(samples.log_ratios[self._index])
        return value

    @property
    def log_improvement(self) -> float:
        """The logarithm of the expected improvement, up to a constant; 0 if the sampler has no model of it.

        It is proportional to 1 / (gamma + (1 - gamma) g / l), where l is the density of the parameters among good
        trials, a fraction gamma of all, and g that among the others (Bergstra et al., "Algorithms for Hyper-Parameter
        Optimization", 2011).
        """
        log_ratio = sum(value for names, value in self._log_ratios.items() if names <= self.params.keys())
        return -float(np.logaddexp(math.log(GOOD_FRACTION), math.log(1 - GOOD_FRACTION) - log_ratio))


def _single_value(distribution: BaseDistribution) -> float:
    return distribution.low if isinstance(distribution, FloatDistribution) else 0.0  # the index of a choice


def _visible_study(study: Study) -> Study:
    storage = _VisibleTrials(visible_trials(study.get_trials(deepcopy=False)))
    return optuna.create_study(storage=storage, directions=study.directions)


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


class Samples(NamedTuple):
    """Samples of parameters that TPE models together: their values as in Optuna's models, and log l(x) - log g(x)."""

    values: Mapping[str, Any]
    log_ratios: Any


class ScoringTPESampler(TPESampler):
    """TPE that keeps its samples and their scores.

    Attributes:
        samples: the last ones of each parameter.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401  # those of TPESampler
        super().__init__(**options)
        self.samples: dict[str, Samples] = {}

    def draw(self, count: int) -> None:
        """Draw this many samples of each parameter."""
        self._n_ei_candidates = count

    def _compute_acquisition_func(self, samples: dict[str, Any], mpe_below: Any, mpe_above: Any) -> Any:  # noqa: ANN401
        log_ratios = super()._compute_acquisition_func(samples, mpe_below, mpe_above)
        self.samples.update(dict.fromkeys(samples, Samples(samples, log_ratios)))
        return log_ratios


def _tpe(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return ScoringTPESampler(
            seed=seed,
            n_startup_trials=NUM_STARTUP_TRIALS,
            multivariate=True,
            group=True,  # model conditional parameters (such as sgd_lr) only among the trials that have them
            constant_liar=True,
        )


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {"tpe": _tpe, "random": RandomSampler}  # from a seed
