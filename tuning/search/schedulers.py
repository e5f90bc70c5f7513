"""Trial schedulers by name: what stops a hopeless trial before its last epoch."""

from __future__ import annotations

import bisect
import math
import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Literal

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial

SchedulerName = Literal["asha", "median", "none"]
NEVER_STOP = "protected"  # in a trial's configuration: the scheduler must not stop it ...
EXCLUDED = "unjudged"  # ... nor hold it against others
REDUCTION_FACTOR = 2
GRACE_FRACTION = 0.25  # of the epochs: measured, a grace of 1 in 16 cost 5 points of accuracy and 4 in 16 cost 0.3
MIN_SAMPLES_REQUIRED = 3  # other trials that have come as far; Ray's default


class _ExemptingScheduler(TrialScheduler):
    """Stands before a scheduler, and lets it stop no trial whose configuration says that it is protected.

    The default is: a search must never end worse on validation than the default configuration trained to its end. So
    are the best probe's fine-tunes, which would be judged by it alone, and the probes, which cost nothing. Probes are
    not judged either: a head alone learns faster than a network, and would have every fine-tune stopped at once.
    """

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Take an epoch of a trial; return whether it goes on."""
        if trial.config.get(EXCLUDED):
            return TrialScheduler.CONTINUE
        decision: str = super().on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if trial.config.get(NEVER_STOP) else decision

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> None:
        """Take the end of a trial."""
        if trial.config.get(EXCLUDED):
            self.on_trial_remove(tune_controller, trial)
        else:
            super().on_trial_complete(tune_controller, trial, result)


class ExemptingASHA(_ExemptingScheduler, AsyncHyperBandScheduler):
    """ASHA: at each rung a trial must be among the better half of those that came so far."""


class MedianStopping(FIFOScheduler):
    """Stops a trial whose best score up to an epoch is below the median of the others' average scores up to it.

    The rule of Golovin et al., "Google Vizier" (2017), section 3.2.1. Ray's own keeps every report and looks at all of
    them at each new one; this one keeps a sorted number for each trial and epoch.
    """

    def __init__(self, grace_epochs: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._grace_epochs = grace_epochs
        self._averages: defaultdict[int, list[float]] = defaultdict(list)  # by epoch, in their order
        self._scores: defaultdict[str, list[float]] = defaultdict(list)  # of trials that run, from the grace's end on
        self._epochs: dict[str, int] = {}

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Take an epoch of a trial; return whether it goes on. An epoch that is told again is no news."""
        del tune_controller
        epoch, name = result["epoch"], trial.trial_id
        if epoch <= self._epochs.get(name, 0) or epoch < self._grace_epochs:
            return TrialScheduler.CONTINUE
        self._epochs[name] = epoch
        self._scores[name].append(result["objective"])
        others = self._averages[epoch]
        is_hopeless = len(others) >= MIN_SAMPLES_REQUIRED and max(self._scores[name]) < statistics.median(others)
        bisect.insort(others, statistics.fmean(self._scores[name]))
        return TrialScheduler.STOP if is_hopeless else TrialScheduler.CONTINUE

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> None:
        """Take the end of a trial, whose averages stay."""
        del result
        self.on_trial_remove(tune_controller, trial)

    def on_trial_remove(self, tune_controller: TuneController, trial: Trial) -> None:
        """Forget a trial that is over; one whose worker was lost is told again, and is no news up to there."""
        del tune_controller
        self._scores.pop(trial.trial_id, None)
        self._epochs.pop(trial.trial_id, None)


class ExemptingMedian(_ExemptingScheduler, MedianStopping):
    """The median rule."""


def build_scheduler(name: SchedulerName, max_epochs: int) -> TrialScheduler:
    """Return the scheduler called ``name`` for trials of up to ``max_epochs``."""
    if name == "none" or max_epochs < 2:
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    grace_epochs = max(1, math.ceil(GRACE_FRACTION * max_epochs))
    if name == "median":
        return ExemptingMedian(grace_epochs)
    return ExemptingASHA(
        time_attr="epoch",
        metric="objective",
        mode="max",
        grace_period=grace_epochs,
        reduction_factor=REDUCTION_FACTOR,
        # One more than the epochs there are, so that a trial's own last word is never cut off.
        max_t=max_epochs + 1,
    )
