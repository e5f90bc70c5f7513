"""The main job: from a recipe to a promoted version, and what is shown on the way."""

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
    """One search, from its parent run on; with ``options``, one that goes on."""

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

    def run(self) -> int:
        """Run the trials, then package, measure and register the best; return the exit status."""
        ledger, run_ids = self._run_trials()
        results = ledger.trials()
        if not any(result.is_eligible for result in results):
            return self._fail_without_model(results)
        return SearchFinalizer(
            self._recipe, self._context, self._parent, self._paths, self._name, results, run_ids
        ).run(self._signals)

    def _run_trials(self) -> tuple[TrialStore, Mapping[str, str]]:
        """Run all trials; return the ledger, and each trial's MLflow run as far as it was made."""
        ledger = self._open_store()
        recipe = self._recipe_with_remaining_budget(ledger)
        self._save_search_metadata(recipe, is_new=not ledger.trials())
        runs, clock = TrialLogger(self._parent.writer), self._time_budget(recipe, ledger)
        runs.replay_missing(ledger.trials())
        views = EventCallback()
        listeners = (runs, WeightsCleanup(self._paths, ledger), views)
        try:
            with self._time_step_in_background() as step_s:
                for preprocessing in dict.fromkeys(self._context.preprocessings.values()):
                    pixel_cache(self._context.dataset, preprocessing, emit_progress)
                start_stage("starting Ray")
                with self._ray.running():
                    check_shared_filesystem(self._paths.root)
                    at_once = concurrency(recipe, cluster_resources())
                    self._log_budget_estimate(recipe, at_once, step_s)
                    emit(self._plan(recipe, ledger, at_once, clock))
                    TuneRunner(recipe, self._paths, ledger, listeners, self._signals, clock, warning).run()
                    start_stage("ending the trials")
        finally:
            with self._signals.block_signals():
                for result in ledger.running():
                    if clock.is_exhausted and not self._signals.stop_requested:
                        ended = ledger.finish(result.trial_uid, "pruned", "the minutes were spent")
                        runs.on_trial_end(ended, None)
                        views.on_trial_end(ended, None)
                    else:
                        runs.on_trial_end(result.model_copy(update={"reason": "the search ended before it"}), None)
                self._parent.writer.flush()
        return ledger, self._parent.writer.run_ids()

    def _open_store(self) -> TrialStore:
        """Return the search's ledger."""
        recipe, dataset = self._recipe, self._context.dataset
        space = SearchSpace(
            recipe, dataset.imbalance, self._context.unsplittable_backbones, small_images=dataset.has_small_images
        )

        def configure(settings: Mapping[str, ParamValue]) -> TrialConfig:
            return space.trial_config(settings, self._context.preprocessings)

        return open_trial_store(self._paths, space, configure, recipe.seed, len(dataset.split("val")), recipe.sampler)

    def _plan(self, recipe: Recipe, ledger: TrialStore, at_once: int, clock: TimeBudget) -> SearchPlanned:
        return SearchPlanned(
            run_id=self._parent.run_id,
            text=summary.plan_line(recipe, ledger, at_once),
            trials=recipe.max_trials,
            probes=ledger.num_probes_left,
            tried=ledger.num_trials - sum(result.origin not in {"probe", "rerun"} for result in ledger.running()),
            max_epochs=recipe.max_epochs,
            max_concurrent=at_once,
            ends_s=clock.ends_s,
            best=next(iter(ranked(ledger.trials())), None),
        )

    @contextmanager
    def _time_step_in_background(self) -> Iterator[Future[dict[float, float]] | None]:
        """Within: a training step is measured beside all else; on an accelerator there is no saying before it runs."""
        if choose_device().type != "cpu":
            yield None
            return
        with ThreadPoolExecutor(1, "measuring") as aside:
            yield aside.submit(step_times, *next(iter(self._context.preprocessings)))

    def _log_budget_estimate(self, recipe: Recipe, at_once: int, step_s: Future[dict[float, float]] | None) -> None:
        """Say what the budget will buy."""
        if step_s is None:
            return
        if not step_s.done():
            start_stage("measuring a training step")
        backbone, image_size = next(iter(self._context.preprocessings))
        train, val = (len(self._context.dataset.split(split)) for split in ("train", "val"))
        expected = estimate_budget(recipe, step_s.result(), train, val, at_once)
        info(summary.budget_line(recipe, expected, backbone, image_size, at_once))

    def _recipe_with_remaining_budget(self, ledger: TrialStore) -> Recipe:
        """Return the recipe with the budget that is to come."""
        if self._request is None:
            return self._recipe
        if self._request.has_new_budget:
            self._paths.elapsed.unlink(missing_ok=True)  # a new budget has its own time
        return recipe_for_resume(self._recipe, self._request, ledger.num_trials)

    def _save_search_metadata(self, recipe: Recipe, is_new: bool) -> None:
        """Write down what is searched, on disk and, the first time, on the parent run."""
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

    def _time_budget(self, recipe: Recipe, ledger: TrialStore) -> TimeBudget:
        return TimeBudget(
            recipe.budget_s,
            self._paths.elapsed,
            has_reruns=bool(recipe.rerun_top_k and recipe.rerun_seeds),
            has_progress=any(result.score is not None for result in ledger.trials()),
            previous_s=load_elapsed_s(self._paths.elapsed),
        )

    def _fail_without_model(self, results: Sequence[TrialRecord]) -> int:
        if self._signals.stop_requested:
            warning("stopped before a trial finished an epoch")
            return INTERRUPTED
        reasons = Counter(result.reason for result in results if result.status == "failed")
        listed = "; ".join(f"{count} trials: {reason}" for reason, count in reasons.most_common(3))
        raise SearchError(
            f"no trial finished an epoch, so there is no model ({listed}); see the trials' runs in MLflow"
        )
