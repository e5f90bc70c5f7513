"""A session of a search, which runs its trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from data.dataset.folds import count_folds
from data.loading.pixel_cache import create_pixel_caches
from models.trial_config import TrialConfig
from tuning.common.background import background_thread
from tuning.common.events import (
    EpochEnded,
    EventBus,
    PhaseStarted,
    SearchPlanned,
    TrialEnded,
    TrialStarted,
)
from tuning.common.names import RECIPE_TAG, REGISTERED_MODEL_TAG, SEARCH_FOLDER_TAG
from tuning.common.option_types import ParamValue
from tuning.common.trial_record import RAN_TO_ITS_END, TrialCallback, TrialRecord, TrialReport, TrialStatus
from tuning.recipe.schema import Recipe, ResumeRequest
from tuning.registry.exported_graph import num_novelty_images
from tuning.search.cost_aware import CostAwareProposals
from tuning.search.defaults import MAX_REGRESSION_IMAGES
from tuning.search.ray_runtime import (
    RayRuntime,
    call_on_gpu,
    check_resources,
    check_shared_filesystem,
    cluster_resources,
    concurrency,
)
from tuning.search.selection import ranked
from tuning.search.strategy import SearchStrategy, has_result, num_counted
from tuning.search.study import TrialStore, open_trial_store
from tuning.search.time_budget import Elapsed, TimeBudget
from tuning.search.tune_runner import TuneRunner
from tuning.search.weights_cleanup import WeightsCleanup
from tuning.tracking.dataset_input import data_tags, dataset_fields, folds_csv
from tuning.tracking.trial_logger import TrialLogger
from tuning.ui import summary
from tuning.workflows.phases import PhaseTracker, skipped_reruns
from tuning.workflows.search import Search
from tuning.workflows.work_ahead import WorkAhead

OUT_OF_TIME = "the time budget ended before the trial"


class EventCallback(TrialCallback):
    """Turns each call into an event on ``bus``."""

    def __init__(self, bus: EventBus, phases: PhaseTracker) -> None:
        self._bus = bus
        self._phases = phases

    def on_trial_start(self, trial: TrialRecord) -> None:
        """Emit ``TrialStarted`` when a trial is sent to a worker."""
        self._bus.emit(TrialStarted(trial))

    def on_epoch_end(self, trial: TrialRecord, report: TrialReport) -> None:
        """Emit ``EpochEnded``."""
        self._bus.emit(EpochEnded(trial, report))

    def on_trial_end(self, trial: TrialRecord, report: TrialReport | None) -> None:
        """Emit ``TrialEnded``, after ``PhaseStarted`` for the first trial of a phase."""
        if phase := self._phases.on_trial_end(trial):
            self._bus.emit(phase)
        self._bus.emit(TrialEnded(trial))


class SessionResult(NamedTuple):
    """All trials of a search, the known ids of their MLflow runs, the used time, and the phase after the trials.

    ``recipe`` has the budget of this session, ``ahead`` the work that was done while the trials ran.
    """

    recipe: Recipe
    trials: Sequence[TrialRecord]
    run_ids: Mapping[str, str]
    time_budget: TimeBudget
    final_phase: PhaseStarted
    ahead: WorkAhead


def outcome_at_end(trial: TrialRecord, *, is_out_of_time: bool) -> tuple[TrialStatus, str] | None:
    """Return status and reason of a trial that runs when the trials end; None if ``resume`` continues it.

    A trial that has reported all its epochs is complete, even if its worker has not sent the final report.
    """
    if trial.has_all_epochs:
        return "complete", RAN_TO_ITS_END
    return ("out of time", OUT_OF_TIME) if is_out_of_time else None


def with_requested_budget(
    recipe: Recipe, request: ResumeRequest | None, trials: Sequence[TrialRecord], elapsed_file: Path
) -> Recipe:
    """Return the recipe with the budget of a request, if it has one: the time used before does not count against it."""
    if request is None or (request.trials is None and request.minutes is None):
        return recipe
    Elapsed(0.0, Elapsed.load(elapsed_file).total_s).save(elapsed_file)
    max_trials = None if request.trials is None else num_counted(trials) + request.trials
    return recipe.model_copy(update={"trials": max_trials, "minutes": request.minutes})


class SearchSession:
    """Runs the trials of a search; a ``request`` resumes an earlier session."""

    def __init__(self, search: Search, ray: RayRuntime, request: ResumeRequest | None = None) -> None:
        self._search = search
        self._ray = ray
        self._request = request
        self._space = search.inputs.search_space(search.recipe)
        self._device_name = ""

    def run(self) -> SessionResult:
        """Run all trials until the budget ends or the user requests a stop."""
        store = self._open_store()
        recipe = with_requested_budget(self._search.recipe, self._request, store.trials(), self._search.paths.elapsed)
        self._save_search_metadata(recipe, is_new=not store.trials())
        dataset = self._search.dataset
        num_val_images = len(dataset.split("val"))
        num_folds = count_folds(dataset) if recipe.validation == "folds" else 0
        proposals = CostAwareProposals(store, len(dataset.split("train")), num_val_images)
        strategy = SearchStrategy(recipe, self._space, num_val_images, num_folds, proposals)
        trial_logger = TrialLogger(self._search.parent.writer, dataset_fields(dataset), self._search.paths)
        time_budget = self._time_budget(recipe, store)
        trial_logger.replay_missing(store.trials())
        phases = self._phases(recipe, store, strategy)
        event_callback = EventCallback(self._search.bus, phases)
        ahead = WorkAhead(self._search, [each for each in store.trials() if each.status != "running"], time_budget)
        callbacks = (trial_logger, WeightsCleanup(self._search.paths, store), event_callback, ahead)
        try:
            preprocessings = self._search.inputs.preprocessings.values()
            create_pixel_caches(self._search.dataset, preprocessings, self._search.bus.progress)
            self._search.bus.stage("starting Ray")
            with self._ray.running():
                check_shared_filesystem(self._search.paths.root, dataset.root / dataset.samples[0].path)
                recipe = self._with_gpu_share(recipe)
                check_resources(recipe, cluster_resources())
                max_concurrent = concurrency(recipe, cluster_resources())
                self._search.bus.emit(self._plan(recipe, store, strategy, max_concurrent, time_budget))
                time_budget.start_trials()
                runner = TuneRunner(
                    recipe, self._search.paths, store, strategy, callbacks, self._search.signals, time_budget
                )
                with background_thread("work-ahead", ahead.run):
                    runner.run()
                self._search.bus.stage("ending the trials")
        finally:
            with self._search.signals.block_signals():
                is_out_of_time = time_budget.is_exhausted and not self._search.signals.stop_requested
                for trial in store.running():
                    if outcome := outcome_at_end(trial, is_out_of_time=is_out_of_time):
                        ended = store.finish(trial.trial_uid, *outcome)
                        trial_logger.on_trial_end(ended, None)
                        event_callback.on_trial_end(ended, None)
                    else:
                        stopped = trial.model_copy(update={"reason": "the search stopped before the trial ended"})
                        trial_logger.on_trial_end(stopped, None)
                self._search.parent.writer.flush()
        first_fold = 0 if num_folds else None
        reason = skipped_reruns(
            recipe,
            store.trials(),
            num_val_images,
            time_budget.seconds_left,
            lambda trial: proposals.rerun_seconds(trial, first_fold, store.trials()),
        )
        if reason and not self._search.signals.stop_requested:
            self._search.bus.info(reason)
        run_ids = self._search.parent.writer.outbox.run_ids
        return SessionResult(recipe, store.trials(), run_ids, time_budget, phases.final(), ahead)

    def _with_gpu_share(self, recipe: Recipe) -> Recipe:
        """Return the recipe with the share of a GPU that a training step needs, if it is open."""
        if recipe.gpus_per_trial is not None:
            return recipe
        from models.profiling.step_memory import measure_step_memory
        from tuning.search.gpu_share import gpu_share

        self._search.bus.stage("measuring a training step on the GPU")
        configs = self._space.largest_configs(self._search.inputs.preprocessings)
        num_classes = len(self._search.dataset.classes)
        memory = call_on_gpu(partial(measure_step_memory, configs, num_classes))
        self._device_name = memory.device if memory else ""
        share = gpu_share(memory, cluster_resources(), recipe.cpus_per_trial)
        return recipe.model_copy(update={"gpus_per_trial": share})

    def _phases(self, recipe: Recipe, store: TrialStore, strategy: SearchStrategy) -> PhaseTracker:
        trials = store.trials()
        num_trials = None if recipe.max_trials is None else recipe.max_trials - self._num_finished(store)
        has_reruns = bool(recipe.rerun_top_k and recipe.rerun_seeds)
        return PhaseTracker(len(strategy.probes_left(trials)), num_trials, has_reruns=has_reruns)

    def _num_finished(self, store: TrialStore) -> int:
        return num_counted(store.trials()) - num_counted(store.running())

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
        num_probes, num_dropped = len(strategy.probes_left(trials)), strategy.num_dropped_probes(trials)
        return SearchPlanned(
            run_id=self._search.parent.run_id,
            text=summary.plan_line(recipe, trials, num_probes, num_dropped),
            trials=recipe.max_trials,
            probes=num_probes,
            finished=self._num_finished(store),
            max_epochs=recipe.max_epochs,
            max_concurrent=max_concurrent,
            ends_s=time_budget.ends_s,
            budget_s=recipe.budget_s,
            device="GPU" if recipe.gpus_per_trial else "CPU",
            device_name=self._device_name,
            best=next(iter(ranked(trials)), None),
            previous=[trial for trial in trials if trial.status != "running"],
            probes_dropped=num_dropped,
        )

    def _save_search_metadata(self, recipe: Recipe, is_new: bool) -> None:
        """Save the recipe and the data set on disk and, for a new search, log them on the parent run."""
        dataset = self._search.dataset
        self._search.paths.write(recipe, dataset)
        if not is_new:
            return
        tags = {
            SEARCH_FOLDER_TAG: str(self._search.paths.root),
            **data_tags(dataset),
            RECIPE_TAG: recipe.to_json(),
            REGISTERED_MODEL_TAG: recipe.name or dataset.name,
        }
        self._search.parent.rename(self._search.run_name)
        self._search.parent.log_search_metadata(recipe.given_params(), tags, dataset)
        if recipe.validation == "folds" and len(dataset.development) <= MAX_REGRESSION_IMAGES:
            self._search.parent.log_text(folds_csv(dataset), "folds.csv")

    def _time_budget(self, recipe: Recipe, store: TrialStore) -> TimeBudget:
        return TimeBudget(
            recipe.budget_s,
            self._search.paths.elapsed,
            self._search.context.started_s,
            num_test_images=len(self._search.dataset.split("test")),
            num_export_images=num_novelty_images(self._search.dataset) if self._search.recipe.novelty == "on" else 0,
            has_progress=has_result(store.trials()),
            previous=Elapsed.load(self._search.paths.elapsed),
        )
