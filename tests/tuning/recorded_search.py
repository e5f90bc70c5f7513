"""A search without Optuna and Ray, for tests of the strategy."""

from __future__ import annotations

import math
from typing import Any

from optuna.trial import FixedTrial

from tests.tuning.factories import NUM_VAL_IMAGES, PREPROCESSINGS, epoch_metrics, recipe, trial_record
from tuning.common.trial_record import TrialRecord, TrialStatus
from tuning.search.reruns import NextRerun
from tuning.search.space import SearchSpace
from tuning.search.strategy import NextStep, Proposal, SearchState, SearchStrategy

FOUR_PROBES = {"sweep": "on", "image_size": "32,64", "truncate": "0,1"}


class Search:
    """A search without Optuna and Ray: trials are records, and the time is a number."""

    def __init__(self, **options: Any) -> None:
        defaults = {"max_epochs": 4, "sweep": "off", "trials": 3, "rerun_top_k": 2, "rerun_seeds": 1}
        self.recipe = recipe(**{**defaults, **options})
        self.space = SearchSpace(self.recipe)
        self.strategy = SearchStrategy(self.recipe, self.space, NUM_VAL_IMAGES)
        self.trials: list[TrialRecord] = []
        self.interrupted: list[TrialRecord] = []
        self.fraction_used = 0.0
        self.seconds_left = math.inf

    def next(self) -> NextStep:
        return self.strategy.next(SearchState(self.trials, self.interrupted, self.fraction_used, self.seconds_left))

    def start(self) -> TrialRecord:
        step = self.next()
        assert isinstance(step, Proposal | NextRerun)
        trial = trial_record(len(self.trials), None, "running")
        if isinstance(step, NextRerun):
            config = step.trial.config.model_copy(update={"seed": step.seed})
            values: dict[str, Any] = {"origin": "rerun", "rerun_of": step.trial.trial_uid, "config": config}
        else:
            params = step.params or self.space.default_trials()[0]
            settings = self.space.suggest(FixedTrial(dict(params)), is_probe=step.is_probe)
            settings = dict(step.start.settings) if step.start else settings
            config = self.space.trial_config(settings, PREPROCESSINGS)
            values = {"origin": step.origin, "fixed_params": step.fixed_params, "settings": settings, "config": config}
        self.trials.append(trial.model_copy(update=values))
        return self.trials[-1]

    def finish(self, trial: TrialRecord, score: float | None, status: TrialStatus = "complete") -> TrialRecord:
        history = () if score is None else (epoch_metrics(score) | {"epoch_s": 10.0},)
        self.trials[trial.number] = trial.model_copy(update={"status": status, "history": history})
        return self.trials[trial.number]

    def run(self, score: float | None = 0.5, status: TrialStatus = "complete") -> TrialRecord:
        return self.finish(self.start(), score, status)
