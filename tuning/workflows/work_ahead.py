"""Work that the end of a search needs, done while its trials run.

After the first trial a thread at low priority counts the FLOPs that the sampler compares costs by; later it measures
the serving costs of the networks that lead, and, once the re-runs have begun, exports the networks that win if no later
trial is better. What is missing when the trials end, ``finalize`` does. Results are passed in caches and in the
search's folder, so a resumed search can use them too.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from models.profiling.serving_cost import ServingSpec, serving_cost
from models.profiling.training_cost import TRACING, network_flops
from tuning.common.trial_record import TrialCallback, TrialRecord, TrialReport
from tuning.registry.exported_graph import export_ahead
from tuning.search.selection import specs_by_loss
from tuning.search.strategy import EXPLORATION_SHARE
from tuning.search.time_budget import TimeBudget
from tuning.ui.tables.networks import compare_networks
from tuning.workflows.search import Search
from tuning.workflows.winner import cost_measurement_s, pixel_baseline, select_winner, trained_members

logger = logging.getLogger(__name__)

# Of the thread, which then has about a quarter of a core while all cores are busy: enough to end before the trials.
NICENESS = 5
POLL_INTERVAL_S = 1.0
COSTS_START = 0.5  # fraction of the trials' time from which costs are measured: the networks that lead are known
MAX_EXPORTS = 2  # of likely winners: the first is mostly the last


class WorkAhead(TrialCallback):
    """The background work of one session of a search; as a callback it learns which trials have ended.

    Attributes:
        measured_s: the seconds in which serving costs were measured.
        pixel_baseline: the accuracy of the raw-pixel baseline; None if there was no time.
    """

    def __init__(self, search: Search, trials: Sequence[TrialRecord], time_budget: TimeBudget) -> None:
        """Take the trials that have ended before this session."""
        self._search = search
        self._time_budget = time_budget
        self._ended = list(trials)
        self._has_reruns = any(trial.origin == "rerun" for trial in trials)
        self._measured: set[ServingSpec] = set()
        self._num_exports = self._num_compared = 0
        self.measured_s = 0.0
        self.pixel_baseline: float | None = None

    def on_trial_start(self, trial: TrialRecord) -> None:
        """Record that the re-runs have begun."""
        self._has_reruns = self._has_reruns or trial.origin == "rerun"

    def on_trial_end(self, trial: TrialRecord, report: TrialReport | None) -> None:
        """Add an ended trial."""
        self._ended.append(trial)

    def run(self, stopped: threading.Event) -> None:
        """Work until the trials end."""
        if hasattr(os, "setpriority"):
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        try:
            while not self._ended and not stopped.is_set():  # the first score comes first
                stopped.wait(POLL_INTERVAL_S)
            self._count_flops(stopped)
            while not stopped.is_set():
                with TRACING:
                    is_idle = not self._step()
                if is_idle:
                    stopped.wait(POLL_INTERVAL_S)
        except Exception:  # ``finalize`` repeats the step, and reports its error
            logger.debug("work ahead failed", exc_info=True)

    def _count_flops(self, stopped: threading.Event) -> None:
        for backbone, image_size in self._search.inputs.preprocessings:
            if not stopped.is_set():
                network_flops(backbone, image_size)

    def _step(self) -> bool:
        """Do one piece of work; return whether there was any."""
        trials = [trial for trial in self._ended if trial.is_eligible]
        if not trials or not self._is_after(COSTS_START):
            return False
        if (spec := self._next_spec(trials)) is not None:
            started_s = time.thread_time()
            self._measured.add(spec)
            with suppress(Exception):  # a backbone that cannot be exported only lacks a cost
                serving_cost(spec)
            self.measured_s += time.thread_time() - started_s
            return True
        if self.pixel_baseline is None:
            self.pixel_baseline = pixel_baseline(self._search)
            return True
        is_unchanged = len(self._ended) == self._num_compared
        if is_unchanged or self._num_exports >= MAX_EXPORTS or not self._is_after(EXPLORATION_SHARE):
            return False
        self._num_compared = len(self._ended)
        self._export(list(self._ended))
        return True

    def _is_after(self, fraction: float) -> bool:
        return self._has_reruns or self._time_budget.fraction_used >= fraction

    def _next_spec(self, trials: Sequence[TrialRecord]) -> ServingSpec | None:
        """Return the best network whose cost is not known yet; None after the time for measuring them."""
        if self.measured_s > cost_measurement_s(self._search.recipe):
            return None
        specs = specs_by_loss(trials, len(self._search.dataset.classes))
        return next((spec for spec in specs if spec not in self._measured), None)

    def _export(self, trials: Sequence[TrialRecord]) -> None:
        search = self._search
        self._time_budget.export_has_begun = True
        compare_networks(trials, len(search.dataset.classes))
        members = trained_members(search, select_winner(search, trials, self.measured_s))
        has_novelty = search.recipe.novelty == "on"
        exported = export_ahead(members, search.dataset, search.paths.package, has_novelty=has_novelty)
        self._time_budget.latency_ms = exported.latency_ms
        self._num_exports += 1
