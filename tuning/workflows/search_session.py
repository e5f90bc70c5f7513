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
from tuning.common.event_bus import enter, progress, say, tell, warn
from tuning.common.events import Planned
from tuning.common.exit_codes import INTERRUPTED
from tuning.common.names import SEARCH_FOLDER
from tuning.common.search_paths import SearchPaths
from tuning.common.signals import Interrupts
from tuning.common.trial_record import Setting, TrialResult
from tuning.recipe.resume import continued
from tuning.recipe.schema import Recipe
from tuning.search.budget_estimate import plan
from tuning.search.ray_runtime import Ray, check_shared, concurrency, resources
from tuning.search.selection import ranked
from tuning.search.space import SearchSpace
from tuning.search.study import Ledger, open_ledger
from tuning.search.time_budget import Clock, spent_s
from tuning.search.tune_runner import Runner
from tuning.search.weights_cleanup import Tidying
from tuning.tracking.parent_run import ParentRun
from tuning.tracking.trial_logger import TrialRuns
from tuning.ui import summary
from tuning.ui.event_callback import Telling
from tuning.workflows.finalize import Ending
from tuning.workflows.preflight import Ground

if TYPE_CHECKING:
    from tuning.recipe.resume import ResumeOptions


class _Search:
    """One search, from its parent run on; with ``options``, one that goes on."""

    def __init__(
        self,
        recipe: Recipe,
        ground: Ground,
        parent: ParentRun,
        interrupts: Interrupts,
        ray: Ray,
        options: ResumeOptions | None = None,
    ) -> None:
        self._recipe = recipe
        self._name = recipe.name or ground.dataset.name
        self._ground = ground
        self._parent = parent
        self._interrupts = interrupts
        self._ray = ray
        self._options = options
        self._paths = SearchPaths.of(parent.run_id)

    def run(self) -> int:
        """Run the trials, then package, measure and register the best; return the exit status."""
        ledger, run_ids = self._run_trials()
        results = ledger.results()
        if not any(result.counts for result in results):
            return self._nothing(results)
        return Ending(self._recipe, self._ground, self._parent, self._paths, self._name, results, run_ids).run(
            self._interrupts
        )

    def _run_trials(self) -> tuple[Ledger, Mapping[str, str]]:
        """Run all trials; return the ledger, and each trial's MLflow run as far as it was made."""
        ledger = self._open()
        recipe = self._budgeted(ledger)
        self._keep(recipe, is_new=not ledger.results())
        runs, clock = TrialRuns(self._parent.writer), self._clock(recipe, ledger)
        runs.catch_up(ledger.results())
        views = Telling()
        listeners = (runs, Tidying(self._paths, ledger), views)
        try:
            with self._measuring() as step_s:
                for preprocessing in dict.fromkeys(self._ground.preprocessings.values()):
                    pixel_cache(self._ground.dataset, preprocessing, progress)
                enter("starting Ray")
                with self._ray.started():
                    check_shared(self._paths.root)
                    at_once = concurrency(recipe, resources())
                    self._say_budget(recipe, at_once, step_s)
                    tell(self._plan(recipe, ledger, at_once, clock))
                    Runner(recipe, self._paths, ledger, listeners, self._interrupts, clock, warn).run()
                    enter("ending the trials")
        finally:
            with self._interrupts.shielded():
                for result in ledger.running():
                    if clock.over and not self._interrupts.requested:
                        ended = ledger.finish(result.trial_uid, "pruned", "the minutes were spent")
                        runs.trial_ended(ended, None)
                        views.trial_ended(ended, None)
                    else:
                        runs.trial_ended(result.model_copy(update={"reason": "the search ended before it"}), None)
                self._parent.writer.flush()
        return ledger, self._parent.writer.run_ids()

    def _open(self) -> Ledger:
        """Return the search's ledger."""
        recipe, dataset = self._recipe, self._ground.dataset
        space = SearchSpace(recipe, dataset.imbalance, self._ground.uncut, tiny=dataset.is_tiny)

        def configure(settings: Mapping[str, Setting]) -> TrialConfig:
            return space.trial_config(settings, self._ground.preprocessings)

        return open_ledger(self._paths, space, configure, recipe.seed, len(dataset.split("val")), recipe.sampler)

    def _plan(self, recipe: Recipe, ledger: Ledger, at_once: int, clock: Clock) -> Planned:
        return Planned(
            run_id=self._parent.run_id,
            text=summary.plan_line(recipe, ledger, at_once),
            trials=recipe.most_trials,
            probes=ledger.probes_left,
            tried=ledger.trials - sum(result.origin not in {"probe", "final"} for result in ledger.running()),
            max_epochs=recipe.max_epochs,
            at_once=at_once,
            ends_s=clock.ends_s,
            best=next(iter(ranked(ledger.results())), None),
        )

    @contextmanager
    def _measuring(self) -> Iterator[Future[dict[float, float]] | None]:
        """Within: a training step is measured beside all else; on an accelerator there is no saying before it runs."""
        if choose_device().type != "cpu":
            yield None
            return
        with ThreadPoolExecutor(1, "measuring") as aside:
            yield aside.submit(step_times, *next(iter(self._ground.preprocessings)))

    def _say_budget(self, recipe: Recipe, at_once: int, step_s: Future[dict[float, float]] | None) -> None:
        """Say what the budget will buy."""
        if step_s is None:
            return
        if not step_s.done():
            enter("measuring a training step")
        backbone, image_size = next(iter(self._ground.preprocessings))
        train, val = (len(self._ground.dataset.split(split)) for split in ("train", "val"))
        expected = plan(recipe, step_s.result(), train, val, at_once)
        say(summary.budget_line(recipe, expected, backbone, image_size, at_once))

    def _budgeted(self, ledger: Ledger) -> Recipe:
        """Return the recipe with the budget that is to come."""
        if self._options is None:
            return self._recipe
        if self._options.extends:
            self._paths.spent.unlink(missing_ok=True)  # a new budget has its own time
        return continued(self._recipe, self._options, ledger.trials)

    def _keep(self, recipe: Recipe, is_new: bool) -> None:
        """Write down what is searched, on disk and, the first time, on the parent run."""
        dataset = self._ground.dataset
        self._paths.write(recipe, dataset)
        if not is_new:
            return
        tags = {
            SEARCH_FOLDER: str(self._paths.root),
            "data_fingerprint": dataset.fingerprint,
            "recipe": recipe.to_json(),
            "registered_model": self._name,
        }
        self._parent.describe(recipe.asked(), tags, dataset)

    def _clock(self, recipe: Recipe, ledger: Ledger) -> Clock:
        return Clock(
            recipe.budget_s,
            self._paths.spent,
            finals=bool(recipe.finalists and recipe.final_seeds),
            has_begun=any(result.score is not None for result in ledger.results()),
            before_s=spent_s(self._paths.spent),
        )

    def _nothing(self, results: Sequence[TrialResult]) -> int:
        if self._interrupts.requested:
            warn("stopped before a trial finished an epoch")
            return INTERRUPTED
        reasons = Counter(result.reason for result in results if result.status == "failed")
        listed = "; ".join(f"{count} trials: {reason}" for reason, count in reasons.most_common(3))
        raise SearchError(
            f"no trial finished an epoch, so there is no model ({listed}); see the trials' runs in MLflow"
        )
