"""Running a search: Ray Tune on the ledger, until the budget is spent or the user asks to end."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from data.errors import SearchError, last_line
from tuning.common.search_paths import SearchPaths
from tuning.common.signals import SignalHandler
from tuning.common.trial_record import TrialRecord
from tuning.recipe.schema import Recipe
from tuning.search.ray_runtime import cluster_resources, concurrency
from tuning.search.stall_watchdog import StallWatchdog
from tuning.search.strategy import SearchStrategy
from tuning.search.study import TrialStore
from tuning.search.time_budget import TimeBudget
from tuning.search.trial_worker import MAX_WORKER_FAILURES, TrialTask, run_trial

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

    from tuning.search.callback import TrialCallback

logger = logging.getLogger(__name__)

MAX_RESTARTS = 5  # of Tune's loop, as when memory ran out, before a search gives up


class StalledError(RuntimeError):
    """Tune waits for a worker that never comes; see ``tuning.search.stall_watchdog``."""


class TuneRunner:
    """Runs the trials of one search on the Ray that was started.

    Args:
        recipe: with the budget that is left.
        paths: of the search.
        ledger: of the search; trials that were put back are run first.
        listeners: told of everything.
        interrupts: of the user.
        clock: of the minutes.
        say: tells the user a sentence.
    """

    def __init__(
        self,
        recipe: Recipe,
        paths: SearchPaths,
        store: TrialStore,
        callbacks: Sequence[TrialCallback],
        signals: SignalHandler,
        time_budget: TimeBudget,
        warn: Callable[[str], None],
    ) -> None:
        self._recipe = recipe
        self._paths = paths
        self._store = store
        self._watchdog = StallWatchdog(paths)
        self._callbacks = (*callbacks, time_budget, self._watchdog)
        self._signals = signals
        self._time_budget = time_budget
        self._warn = warn
        self._concurrency_reduction = 0  # trials at once than there could be, after memory ran out

    def run(self) -> None:
        """Run trials until they, the user or the clock ended; those that were running are left unfinished.

        Tune ends as a whole when Ray kills a worker for memory; then a new one goes on, with one trial less at once.
        Where Tune has lost a trial, it is ended and a new one goes on as well.

        Raises:
            SearchError: Tune ended so too often.
        """
        for left in reversed(range(MAX_RESTARTS)):
            try:
                self._run_once()
                if not self._watchdog.is_stalled:
                    return
                raise StalledError("a trial that Ray took got no worker")
            except RuntimeError as error:
                logger.debug("Tune ended", exc_info=error)
                if self._signals.stop_requested or self._time_budget.is_exhausted:
                    return
                if not left:
                    raise SearchError(
                        f"a search goes on when workers are lost, but they were {MAX_RESTARTS} times "
                        f"({last_line(error)}); give it less to do at once (concurrent), then resume"
                    ) from error
                self._recover(error)

    def _recover(self, error: RuntimeError) -> None:
        """Let what ran be run again; where memory may have run out, with one trial less at once."""
        if not isinstance(error, StalledError):
            self._concurrency_reduction = min(
                self._concurrency_reduction + 1, concurrency(self._recipe, cluster_resources()) - 1
            )
        self._store.requeue_running()
        self._warn(
            f"Ray lost its workers ({last_line(error)}); the search goes on, {self._max_concurrent()} trials at once"
        )

    def _max_concurrent(self) -> int:
        return max(1, concurrency(self._recipe, cluster_resources()) - self._concurrency_reduction)  # nodes come and go

    def _run_once(self) -> None:
        from ray import tune
        from ray.tune.execution import class_cache

        from tuning.search.schedulers import build_scheduler
        from tuning.search.searcher import StudySearcher

        # Tune gives its workers an environment of their own, with the user's AWS keys in it, which Ray writes into its
        # log; and no worker that Ray started beforehand has that environment. Ours have what they need without it.
        class_cache.DEFAULT_ENV_VARS.clear()
        class_cache.ENV_VARS_TO_PROPAGATE.clear()
        recipe = self._recipe
        scheduler = build_scheduler(recipe.scheduler, recipe.max_epochs)
        replay_into_scheduler(scheduler, self._store.trials())
        course = SearchStrategy(
            recipe, self._store, self._time_budget, lambda: self._signals.stop_requested, self._max_concurrent
        )
        tuner = tune.Tuner(
            tune.with_resources(run_trial, {"cpu": recipe.cpus_per_trial, "gpu": recipe.gpus_per_trial}),
            tune_config=tune.TuneConfig(
                search_alg=StudySearcher(self._store, self._callbacks, self._make_task, course.next),
                scheduler=scheduler,
                num_samples=-1,  # the course ends it
                reuse_actors=True,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(self._paths.ray),
                failure_config=tune.FailureConfig(max_failures=MAX_WORKER_FAILURES),
                verbose=0,
            ),
        )
        # Until Tune's handler is there the signal must not end the process.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        self._signals.install()
        with (
            self._signals.on_first_signal(_request_stop),
            self._time_budget.call_at_deadline(_request_stop),
            self._watchdog.watch(_request_stop),
        ):
            tuner.fit()

    def _make_task(self, result: TrialRecord) -> TrialTask:
        return TrialTask(
            trial_uid=result.trial_uid,
            config=result.config,
            search_root=self._paths.root,
            threads=self._recipe.cpus_per_trial,
        )


def replay_into_scheduler(scheduler: TrialScheduler, results: Sequence[TrialRecord]) -> None:
    """Tell a new scheduler how the ended trials did, epoch by epoch; those that go on tell it themselves."""
    from tuning.search.searcher import scheduler_flags

    for result in results:
        if result.status == "running":
            continue
        trial: Any = SimpleNamespace(trial_id=result.trial_uid, config=scheduler_flags(result))
        controller: Any = None
        scheduler.on_trial_add(controller, trial)
        told: dict[str, Any] = {}
        for epoch in range(1, result.epochs + 1):
            best = max(result.scores[:epoch])
            told = {"epoch": epoch, "objective": best}
            scheduler.on_trial_result(controller, trial, told)
        if told:
            scheduler.on_trial_complete(controller, trial, told)


def _request_stop() -> None:
    os.kill(os.getpid(), signal.SIGUSR1)  # Tune ends its loop on it


def _trial_name(trial: object) -> str:
    return f"trial_{getattr(trial, 'trial_id', '')}"
