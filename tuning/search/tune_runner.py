"""Running the trials of a search with Ray Tune until the budget is exhausted or the user requests a stop."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from data.errors import SearchError, last_line
from tuning.common.search_paths import SearchPaths
from tuning.common.signals import SignalHandler
from tuning.common.trial_record import TrialCallback, TrialRecord
from tuning.recipe.schema import Recipe
from tuning.search.gpu_share import GpuShare
from tuning.search.ray_runtime import cluster_resources, concurrency
from tuning.search.stall_watchdog import STALL_TIMEOUT_S, StallWatchdog
from tuning.search.strategy import NextStep, SearchState, SearchStrategy
from tuning.search.study import TrialStore
from tuning.search.time_budget import TimeBudget
from tuning.search.trial_worker import MAX_WORKER_FAILURES, TrialTask, run_trial

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler


logger = logging.getLogger(__name__)

MAX_FAILURES = 5  # the search fails once Tune's loop has failed this many times: out of memory, or stalled


class TuneRunner:
    """Runs the trials of one search on the running Ray; the recipe has the remaining budget."""

    def __init__(
        self,
        recipe: Recipe,
        paths: SearchPaths,
        store: TrialStore,
        strategy: SearchStrategy,
        callbacks: Sequence[TrialCallback],
        signals: SignalHandler,
        time_budget: TimeBudget,
    ) -> None:
        self._recipe = recipe
        self._paths = paths
        self._store = store
        self._strategy = strategy
        self._watchdog = StallWatchdog(paths.heartbeat)
        self._gpu_share = GpuShare(recipe.gpus_per_trial or 0.0)
        self._callbacks = (*callbacks, time_budget, self._watchdog, self._gpu_share)
        self._signals = signals
        self._time_budget = time_budget
        self._concurrency_reduction = 0  # trials fewer than the resources allow, after running out of memory

    def run(self) -> None:
        """Run trials until all have ended, the user requests a stop or the time is exhausted; running trials stay open.

        Tune fails as a whole when Ray kills a worker for lack of memory. It is then restarted with one concurrent trial
        fewer. It is also restarted after a stall, and with a larger share of the GPU after a trial has run out of its
        memory, once the other trials have ended.

        Raises:
            SearchError: Tune failed or stalled too often.
        """
        for failures_left in reversed(range(MAX_FAILURES)):
            try:
                self._run_until_share_is_enough()
                if not self._watchdog.is_stalled:
                    return
                raise RuntimeError(f"no worker has sent a heartbeat for {STALL_TIMEOUT_S:.0f} s")
            except RuntimeError as error:
                if self._signals.stop_requested or self._time_budget.is_exhausted:
                    return
                if not failures_left:
                    raise SearchError(
                        f"Ray lost its workers {MAX_FAILURES} times ({last_line(error)}); "
                        "lower max_concurrent, then resume the search"
                    ) from error
                self._recover(error)

    def _run_until_share_is_enough(self) -> None:
        while True:  # the share doubles up to a whole GPU
            self._recipe = self._recipe.model_copy(update={"gpus_per_trial": self._gpu_share.take()})
            self._run_once()
            if not self._gpu_share.has_grown or self._signals.stop_requested or self._time_budget.is_exhausted:
                return

    def _recover(self, error: RuntimeError) -> None:
        """Interrupt the running trials; unless Tune stalled, reduce the number of concurrent trials."""
        if not self._watchdog.is_stalled:
            self._concurrency_reduction = min(
                self._concurrency_reduction + 1, concurrency(self._recipe, cluster_resources()) - 1
            )
        self._store.interrupt_running()
        logger.warning(
            "Ray lost its workers (%s); continuing with %s concurrent trials", last_line(error), self._max_concurrent()
        )

    def _max_concurrent(self) -> int:
        return max(1, concurrency(self._recipe, cluster_resources()) - self._concurrency_reduction)  # nodes come and go

    def _run_once(self) -> None:
        from ray import tune
        from ray.tune.execution import class_cache

        from tuning.search.schedulers import build_scheduler
        from tuning.search.searcher import StudySearcher

        # Tune sets a separate environment for its workers. It includes the user's AWS keys, which Ray logs, and it
        # prevents the use of workers that Ray started in advance. Workers inherit all they need without it.
        class_cache.DEFAULT_ENV_VARS.clear()
        class_cache.ENV_VARS_TO_PROPAGATE.clear()
        recipe = self._recipe
        scheduler = build_scheduler(recipe.scheduler, recipe.max_epochs)
        replay_into_scheduler(scheduler, self._store.trials())
        tuner = tune.Tuner(
            tune.with_resources(run_trial, {"cpu": recipe.cpus_per_trial, "gpu": recipe.gpus_per_trial or 0.0}),
            tune_config=tune.TuneConfig(
                search_alg=StudySearcher(self._store, self._callbacks, self._make_task, self._next_step),
                scheduler=scheduler,
                num_samples=-1,  # the strategy ends the search
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
        # Until Tune has installed its handler, the signal must not end the process.
        previous_handler = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        self._signals.install()
        try:
            with (
                self._signals.on_first_signal(_request_stop),
                self._time_budget.call_at_deadline(_request_stop),
                self._watchdog.watch(_request_stop),
            ):
                tuner.fit()
        finally:
            signal.signal(signal.SIGUSR1, previous_handler)

    def _next_step(self) -> NextStep:
        """Return the strategy's next step if a trial may start now."""
        if self._signals.stop_requested or self._time_budget.is_exhausted or self._gpu_share.has_grown:
            return "end"
        if self._store.num_running >= self._max_concurrent():
            return "wait"
        state = SearchState(
            self._store.trials(),
            self._store.interrupted(),
            self._time_budget.fraction_used,
            self._time_budget.seconds_left,
        )
        return self._strategy.next(state)

    def _make_task(self, trial: TrialRecord) -> TrialTask:
        return TrialTask(
            trial_uid=trial.trial_uid,
            config=trial.config,
            search_root=self._paths.root,
            threads=self._recipe.cpus_per_trial,
        )


def replay_into_scheduler(scheduler: TrialScheduler, records: Sequence[TrialRecord]) -> None:
    """Report the epochs of ended trials to a new scheduler; running trials report theirs again themselves."""
    from tuning.search.searcher import scheduler_flags

    for record in records:
        if record.status == "running":
            continue
        trial: Any = SimpleNamespace(trial_id=record.trial_uid, config=scheduler_flags(record))
        controller: Any = None
        scheduler.on_trial_add(controller, trial)
        result: dict[str, Any] = {}
        for epoch in range(1, record.epochs + 1):
            result = {"epoch": epoch, "objective": max(record.scores[:epoch])}
            scheduler.on_trial_result(controller, trial, result)
        if result:
            scheduler.on_trial_complete(controller, trial, result)


def _request_stop() -> None:
    os.kill(os.getpid(), signal.SIGUSR1)  # Tune's handler of this signal ends its loop


def _trial_name(trial: object) -> str:
    return f"trial_{getattr(trial, 'trial_id', '')}"
