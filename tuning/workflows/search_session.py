"""One session of a search: run its trials, then finalize it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from data.errors import SearchError
from data.loading.pixel_cache import pixel_cache
from models.device import choose_device
from models.profiling.step_time import step_times
from models.trial_config import TrialConfig
from tuning.common.event_bus import emit, emit_progress, info, start_stage, warning
from tuning.common.events import SearchPlanned
from tuning.common.exit_codes import INTERRUPTED
from tuning.common.names import DATA_FINGERPRINT_TAG, RECIPE_TAG, REGISTERED_MODEL_TAG, SEARCH_FOLDER_TAG
from tuning.common.search_paths import SearchPaths
from tuning.common.signals import SignalHandler
from tuning.common.trial_record import ParamValue, TrialRecord
from tuning.recipe.resume import recipe_for_resume
from tuning.recipe.schema import Recipe
from tuning.search.budget_estimate import estimate_budget
from tuning.search.ray_runtime import RayRuntime, check_shared_filesystem, cluster_resources, concurrency
from tuning.search.selection import ranked
from tuning.search.space import SearchSpace
from tuning.search.strategy import SearchStrategy, num_counted
from tuning.search.study import TrialStore, open_trial_store
from tuning.search.time_budget import TimeBudget, load_elapsed_s
from tuning.search.tune_runner import TuneRunner
from tuning.search.weights_cleanup import WeightsCleanup
from tuning.tracking.parent_run import ParentRun
from tuning.tracking.trial_logger import TrialLogger
from tuning.ui import summary
from tuning.ui.event_callback import EventCallback
from tuning.workflows.finalize import SearchFinalizer
from tuning.workflows.preflight import SearchContext

if TYPE_CHECKING:
    from tuning.recipe.resume import ResumeRequest


class SearchSession:
    """Runs the trials of one search in its parent run; a ``request`` resumes an earlier session."""

    def __init__(
        self,
        recipe: Recipe,
        context: SearchContext,
        parent: ParentRun,
        signals: SignalHandler,
        ray: RayRuntime,
        request: ResumeRequest | None = None,
    ) -> None:
        self._recipe = recipe
        self._name = recipe.name or context.dataset.name
        self._context = context
        self._parent = parent
        self._signals = signals
        self._ray = ray
        self._request = request
        self._paths = SearchPaths.from_search_id(parent.run_id)
        dataset = context.dataset
        self._space = SearchSpace(
            recipe, dataset.imbalance, context.unsplittable_backbones, small_images=dataset.has_small_images
        )

    def run(self) -> int:
        """Run the trials, then package, evaluate and promote the best; return the exit status."""
        store, run_ids = self._run_trials()
        trials = store.trials()
        if not any(trial.is_eligible for trial in trials):
            return self._fail_without_model(trials)
        finalizer = SearchFinalizer(self._recipe, self._context, self._parent, self._paths, self._name, trials, run_ids)
        return finalizer.run(self._signals)

    def _run_trials(self) -> tuple[TrialStore, Mapping[str, str]]:
        """Run all trials; return the trial store and the MLflow run ids known so far, by trial."""
        store = self._open_store()
        recipe = self._recipe_with_remaining_budget(store)
        self._save_search_metadata(recipe, is_new=not store.trials())
        strategy = SearchStrategy(recipe, self._space, len(self._context.dataset.split("val")))
        trial_logger, time_budget = TrialLogger(self._parent.writer), self._time_budget(recipe, store)
        trial_logger.replay_missing(store.trials())
        event_callback = EventCallback()
        callbacks = (trial_logger, WeightsCleanup(self._paths, store), event_callback)
        try:
            with self._time_step_in_background() as step_s:
                for preprocessing in dict.fromkeys(self._context.preprocessings.values()):
                    pixel_cache(self._context.dataset, preprocessing, emit_progress)
                start_stage("starting Ray")
                with self._ray.running():
                    check_shared_filesystem(self._paths.root)
                    max_concurrent = concurrency(recipe, cluster_resources())
                    self._log_budget_estimate(recipe, max_concurrent, step_s)
                    emit(self._plan(recipe, store, strategy, max_concurrent, time_budget))
                    TuneRunner(
                        recipe, self._paths, store, strategy, callbacks, self._signals, time_budget, warning
                    ).run()
                    start_stage("ending the trials")
        finally:
            with self._signals.block_signals():
                for trial in store.running():
                    if time_budget.is_exhausted and not self._signals.stop_requested:
                        ended = store.finish(trial.trial_uid, "pruned", "time budget exhausted")
                        trial_logger.on_trial_end(ended, None)
                        event_callback.on_trial_end(ended, None)
                    else:
                        stopped = trial.model_copy(update={"reason": "the search stopped before the trial ended"})
                        trial_logger.on_trial_end(stopped, None)
                self._parent.writer.flush()
        return store, self._parent.writer.run_ids()

    def _open_store(self) -> TrialStore:
        """Open the trial store of the search."""

        def configure(settings: Mapping[str, ParamValue]) -> TrialConfig:
            return self._space.trial_config(settings, self._context.preprocessings)

        return open_trial_store(self._paths, self._space, configure, self._recipe.seed, self._recipe.sampler)

    def _plan(
        self, recipe: Recipe, store: TrialStore, strategy: SearchStrategy, max_concurrent: int, time_budget: TimeBudget
    ) -> SearchPlanned:
        trials = store.trials()
        num_probes = len(strategy.probes_left(trials))
        return SearchPlanned(
            run_id=self._parent.run_id,
            text=summary.plan_line(recipe, trials, num_probes, max_concurrent),
            trials=recipe.max_trials,
            probes=num_probes,
            finished=num_counted(trials) - num_counted(store.running()),
            max_epochs=recipe.max_epochs,
            max_concurrent=max_concurrent,
            ends_s=time_budget.ends_s,
            best=next(iter(ranked(trials)), None),
        )

    @contextmanager
    def _time_step_in_background(self) -> Iterator[Future[dict[float, float]] | None]:
        """Context manager: time a training step in a background thread.

        CPU only: the step time of a GPU cannot be predicted without running on it.
        """
        if choose_device().type != "cpu":
            yield None
            return
        with ThreadPoolExecutor(1, "step-time") as executor:
            yield executor.submit(step_times, *next(iter(self._context.preprocessings)))

    def _log_budget_estimate(
        self, recipe: Recipe, max_concurrent: int, step_s: Future[dict[float, float]] | None
    ) -> None:
        """Log how many trials the budget allows, or how long the trials take."""
        if step_s is None:
            return
        if not step_s.done():
            start_stage("measuring a training step")
        backbone, image_size = next(iter(self._context.preprocessings))
        train, val = (len(self._context.dataset.split(split)) for split in ("train", "val"))
        estimate = estimate_budget(recipe, step_s.result(), train, val, max_concurrent)
        info(summary.budget_line(recipe, estimate, backbone, image_size, max_concurrent))

    def _recipe_with_remaining_budget(self, store: TrialStore) -> Recipe:
        if self._request is None:
            return self._recipe
        if self._request.has_new_budget:
            self._paths.elapsed.unlink(missing_ok=True)  # time used before does not count against a new budget
        return recipe_for_resume(self._recipe, self._request, num_counted(store.trials()))

    def _save_search_metadata(self, recipe: Recipe, is_new: bool) -> None:
        """Save the recipe and the data set on disk and, for a new search, log them on the parent run."""
        dataset = self._context.dataset
        self._paths.write(recipe, dataset)
        if not is_new:
            return
        tags = {
            SEARCH_FOLDER_TAG: str(self._paths.root),
            DATA_FINGERPRINT_TAG: dataset.fingerprint,
            RECIPE_TAG: recipe.to_json(),
            REGISTERED_MODEL_TAG: self._name,
        }
        self._parent.log_search_metadata(recipe.to_params(), tags, dataset)

    def _time_budget(self, recipe: Recipe, store: TrialStore) -> TimeBudget:
        return TimeBudget(
            recipe.budget_s,
            self._paths.elapsed,
            has_progress=any(trial.score is not None for trial in store.trials()),
            previous_s=load_elapsed_s(self._paths.elapsed),
        )

    def _fail_without_model(self, trials: Sequence[TrialRecord]) -> int:
        if self._signals.stop_requested:
            warning("stopped before a trial finished an epoch, so there is no model")
            return INTERRUPTED
        reasons = Counter(trial.reason for trial in trials if trial.status == "failed")
        listed = "; ".join(f"{count} trials: {reason}" for reason, count in reasons.most_common(3))
        raise SearchError(
            f"no trial finished an epoch, so there is no model ({listed}); see the trials' runs in MLflow"
        )
