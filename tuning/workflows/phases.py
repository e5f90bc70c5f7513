"""The phases of a search as they are shown, from the origins of the trials that have ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tuning.common.events import PhaseStarted
from tuning.common.trial_record import TrialRecord
from tuning.recipe.schema import Recipe
from tuning.search.reruns import top_trials
from tuning.search.strategy import SAFETY_FACTOR

PROBES, TRIALS, RERUNS = "probes", "trials", "re-runs"
FINAL = "test, package, register"


class PhaseTracker:
    """Finds the phase of each trial that ends; a phase never returns to an earlier one.

    Args:
        num_probes: the number of linear probes to run; without any there is no phase for them.
        num_trials: the number of trials to run without probes and re-runs; None if the time decides.
        has_reruns: whether the best trials are re-run.
    """

    def __init__(self, num_probes: int, num_trials: int | None, *, has_reruns: bool) -> None:
        self._planned = {PROBES: num_probes or None, TRIALS: num_trials, RERUNS: None, FINAL: None}
        self._names = [*([PROBES] if num_probes else []), TRIALS, *([RERUNS] if has_reruns else []), FINAL]
        self._probes_left = num_probes
        self._current = -1

    def on_trial_end(self, trial: TrialRecord) -> PhaseStarted | None:
        """Return the phase that starts with this trial, or None if it belongs to the current one."""
        if trial.is_probe:
            self._probes_left -= 1
        return self._start(self._name_of(trial))

    def final(self) -> PhaseStarted:
        """Return the phase after the trials."""
        return self._event(len(self._names) - 1)

    def _name_of(self, trial: TrialRecord) -> str:
        if trial.origin == "rerun" and RERUNS in self._names:
            return RERUNS
        # The default and the champion's configuration start before most probes and may end between them.
        is_among_probes = trial.is_probe or (trial.origin in ("champion", "default") and self._probes_left > 0)
        return PROBES if is_among_probes and PROBES in self._names else TRIALS

    def _start(self, name: str) -> PhaseStarted | None:
        index = self._names.index(name)
        if index <= self._current:
            return None
        self._current = index
        return self._event(index)

    def _event(self, index: int) -> PhaseStarted:
        name = self._names[index]
        return PhaseStarted(index + 1, len(self._names), name, self._planned[name])


def skipped_reruns(
    recipe: Recipe,
    trials: Sequence[TrialRecord],
    num_val_images: int,
    left_s: float,
    rerun_s: Callable[[TrialRecord], float],
) -> str:
    """Return why no trial of a finished search was re-run, with ``left_s`` seconds left; empty if there is no reason.

    ``rerun_s`` predicts the seconds of a trial's re-run. Without a time budget ``left_s`` is infinite, and every re-run
    takes place.
    """
    has_reruns = bool(recipe.rerun_top_k and recipe.rerun_seeds)
    if not has_reruns or any(trial.origin == "rerun" for trial in trials):
        return ""
    best = top_trials(trials, recipe.rerun_top_k, num_val_images)
    if not best:
        has_probes = any(trial.is_eligible and trial.config.is_probe for trial in trials)
        return "no re-runs: the best trials are linear probes, which another seed does not change" if has_probes else ""
    needed_s = SAFETY_FACTOR * min(rerun_s(rerun.trial) for rerun in best)
    left_s = max(0.0, left_s)
    return (
        f"re-runs skipped: {left_s:.0f} s left, the shortest needs about {needed_s:.0f} s"
        if math.isfinite(left_s)
        else ""
    )
