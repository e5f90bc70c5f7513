"""A search, and one session of it, which runs its trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from data.dataset.dataset import Dataset
from data.loading.pixel_cache import pixel_cache
from models.trial_config import TrialConfig
from tuning.common.events import EpochEnded, EventBus, SearchPlanned, TrialEnded, TrialStarted
from tuning.common.formatting import search_name
from tuning.common.names import DATA_FINGERPRINT_TAG, RECIPE_TAG, REGISTERED_MODEL_TAG, SEARCH_FOLDER_TAG
from tuning.common.search_paths import SearchPaths
from tuning.common.signals import SignalHandler
from tuning.common.trial_record import ParamValue, TrialCallback, TrialRecord, TrialReport
from tuning.recipe.schema import Recipe, ResumeRequest
from tuning.search.ray_runtime import RayRuntime, check_shared_filesystem, cluster_resources, concurrency
from tuning.search.selection import ranked
from tuning.search.strategy import SearchStrategy, has_result, num_counted
from tuning.search.study import TrialStore, open_trial_store
from tuning.search.time_budget import TimeBudget, load_elapsed_s
from tuning.search.tune_runner import TuneRunner
from tuning.search.weights_cleanup import WeightsCleanup
from tuning.tracking.dataset_input import dataset_fields
from tuning.tracking.parent_run import ParentRun
from tuning.tracking.trial_logger import TrialLogger
from tuning.ui import summary
from tuning.workflows.preflight import SearchInputs

OUT_OF_TIME = "the time budget ended before the trial"


@dataclass(frozen=True)
class Search:
    """A search in its parent run, as its steps share it; the recipe is without ``auto`` values."""

    recipe: Recipe
    inputs: SearchInputs
    parent: ParentRun
    signals: SignalHandler
    bus: EventBus

    @property
    def dataset(self) -> Dataset:
        """The data set."""
        return self.inputs.dataset

    @property
    def run_name(self) -> str:
        """The name of its run, before the result is known."""
        name, minutes = self.recipe.name or self.dataset.name, self.recipe.budget_s and self.recipe.budget_s / 60
        return search_name(name, minutes, self.recipe.max_trials)

    @cached_property
    def paths(self) -> SearchPaths:
        """The files of the search."""
        return SearchPaths.from_search_id(self.parent.run_id)


class EventCallback(TrialCallback):
    """Turns each call into an event on ``bus``."""

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus

    def on_trial_start(self, trial: TrialRecord) -> None:
        """Emit ``TrialStarted`` when a trial is sent to a worker."""
        self._bus.emit(TrialStarted(trial))

    def on_epoch_end(self, trial: TrialRecord, report: TrialReport) -> None:
        """Emit ``EpochEnded``."""
        self._bus.emit(EpochEnded(trial, report))

    def on_trial_end(self, trial: TrialRecord, report: TrialReport | None) -> None:
        """Emit ``TrialEnded``."""
        self._bus.emit(TrialEnded(trial))


class SessionResult(NamedTuple):
    """All trials of a search, the ids of their MLflow runs as far as they are known, and the time that it has used."""

    trials: Sequence[TrialRecord]
    run_ids: Mapping[str, str]
    time_budget: TimeBudget


class SearchSession:
    """Runs the trials of a search; a ``request`` resumes an earlier session."""

    def __init__(self, search: Search, ray: RayRuntime, request: ResumeRequest | None = None) -> None:
        self._search = search
        self._ray = ray
        self._request = request
        self._space = search.inputs.search_space(search.recipe)

    def run(self) -> SessionResult:
        """Run all trials until the budget ends or the user requests a stop."""
        store = self._open_store()
        recipe = self._recipe_with_remaining_budget(store)
        self._save_search_metadata(recipe, is_new=not store.trials())
        strategy = SearchStrategy(recipe, self._space, len(self._search.dataset.split("val")))
        trial_logger = TrialLogger(self._search.parent.writer, dataset_fields(self._search.dataset))
        time_budget = self._time_budget(recipe, store)
        trial_logger.replay_missing(store.trials())
        event_callback = EventCallback(self._search.bus)
        callbacks = (trial_logger, WeightsCleanup(self._search.paths, store), event_callback)
        try:
            for preprocessing in dict.fromkeys(self._search.inputs.preprocessings.values()):
                pixel_cache(self._search.dataset, preprocessing, self._search.bus.progress)
            self._search.bus.stage("starting Ray")
            with self._ray.running():
                check_shared_filesystem(self._search.paths.root)
                max_concurrent = concurrency(recipe, cluster_resources())
                self._search.bus.emit(self._plan(recipe, store, strategy, max_concurrent, time_budget))
                time_budget.start_trials()
                TuneRunner(
                    recipe, self._search.paths, store, strategy, callbacks, self._search.signals, time_budget
                ).run()
                self._search.bus.stage("ending the trials")
        finally:
            with self._search.signals.block_signals():
                for trial in store.running():
                    if time_budget.is_exhausted and not self._search.signals.stop_requested:
                        ended = store.finish(trial.trial_uid, "out of time", OUT_OF_TIME)
                        trial_logger.on_trial_end(ended, None)
                        event_callback.on_trial_end(ended, None)
                    else:
                        stopped = trial.model_copy(update={"reason": "the search stopped before the trial ended"})
                        trial_logger.on_trial_end(stopped, None)
                self._search.parent.writer.flush()
        return SessionResult(store.trials(), self._search.parent.writer.outbox.run_ids, time_budget)

    def _open_store(self) -> TrialStore:
        """Open the trial store of the search."""

        def configure(settings: Mapping[str, ParamValue]) -> TrialConfig:
            return self._space.trial_config(settings, self._search.inputs.preprocessings)

        return open_trial_store(
            self._search.paths, self._space, configure, self._search.recipe.seed, self._search.recipe.sampler
        )

    def _plan(
        self, recipe: Recipe, store: TrialStore, strategy: SearchStrategy, max_concurrent: int, time_budget: TimeBudget
    ) -> SearchPlanned:
        trials = store.trials()
        num_probes = len(strategy.probes_left(trials))
        return SearchPlanned(
            run_id=self._search.parent.run_id,
            text=summary.plan_line(recipe, trials, num_probes, max_concurrent),
            trials=recipe.max_trials,
            probes=num_probes,
            finished=num_counted(trials) - num_counted(store.running()),
            max_epochs=recipe.max_epochs,
            max_concurrent=max_concurrent,
            ends_s=time_budget.ends_s,
            best=next(iter(ranked(trials)), None),
        )

    def _recipe_with_remaining_budget(self, store: TrialStore) -> Recipe:
        recipe, request = self._search.recipe, self._request
        if request is None or (request.trials is None and request.minutes is None):
            return recipe
        self._search.paths.elapsed.unlink(missing_ok=True)  # time used before does not count against a new budget
        trials = None if request.trials is None else num_counted(store.trials()) + request.trials
        return recipe.model_copy(update={"trials": trials, "minutes": request.minutes})

    def _save_search_metadata(self, recipe: Recipe, is_new: bool) -> None:
        """Save the recipe and the data set on disk and, for a new search, log them on the parent run."""
        dataset = self._search.dataset
        self._search.paths.write(recipe, dataset)
        if not is_new:
            return
        tags = {
            SEARCH_FOLDER_TAG: str(self._search.paths.root),
            DATA_FINGERPRINT_TAG: dataset.fingerprint,
            RECIPE_TAG: recipe.to_json(),
            REGISTERED_MODEL_TAG: recipe.name or dataset.name,
        }
        self._search.parent.rename(self._search.run_name)
        self._search.parent.log_search_metadata(recipe.to_params(), tags, dataset)

    def _time_budget(self, recipe: Recipe, store: TrialStore) -> TimeBudget:
        return TimeBudget(
            recipe.budget_s,
            self._search.paths.elapsed,
            has_progress=has_result(store.trials()),
            previous_s=load_elapsed_s(self._search.paths.elapsed),
        )
