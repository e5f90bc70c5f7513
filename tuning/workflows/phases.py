"""The phases of a search as they are shown, from the origins of the trials that have ended."""

from __future__ import annotations

from tuning.common.events import PhaseStarted
from tuning.common.trial_record import TrialRecord

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
        if trial.origin == "probe":
            self._probes_left -= 1
        return self._start(self._name_of(trial))

    def final(self) -> PhaseStarted:
        """Return the phase after the trials."""
        return self._event(len(self._names) - 1)

    def _name_of(self, trial: TrialRecord) -> str:
        if trial.origin == "rerun" and RERUNS in self._names:
            return RERUNS
        # The default starts before most probes and may end between them.
        is_among_probes = trial.origin == "probe" or (trial.origin == "default" and self._probes_left > 0)
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
