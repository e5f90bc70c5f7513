"""The minutes of a search: when its trials must end so that the command ends in time."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from data.atomic_write import write_atomically
from tuning.search.selection import LeadingPhase

if TYPE_CHECKING:
    from tuning.common.trial_record import TrialRecord, TrialReport

# What comes after the trials, on two cores: what networks cost to serve (8 s), the export (15 to 30 s), the test
# pictures, loading the version back, the report. A short budget leaves it a share only, and ends later than it says
# rather than with nothing tried.
FINALIZE_RESERVE_S = 75.0
FINALIZE_RESERVE_FRACTION = 0.35

RERUN_TIME_FRACTION = 0.2  # of the trials' time that is kept for training the best again with other seeds
RERUN_SAFETY_FACTOR = 1.25  # a trial that is trained again may take so many times what it took
# Of the trials' time, what the sweep may take: with many pictures features take long to make. The better its probes do
# against the fine-tunes so far, the more it is worth; where those leave every probe behind, the time is theirs.
PROBE_TIME_FRACTIONS: Mapping[LeadingPhase, float] = {"fine-tuning": 0.15, "neither": 0.35, "probes": 0.6}


def finalize_reserve_s(budget_s: float) -> float:
    """Return the part of a budget that is kept for what comes after the trials, in seconds."""
    return min(FINALIZE_RESERVE_S, FINALIZE_RESERVE_FRACTION * budget_s)


def probe_time_exhausted(fraction_used: float, leading_phase: Callable[[], LeadingPhase]) -> bool:
    """Return whether no more probes are to be started when this share of the trials' time is over.

    Who leads is asked only where it matters.
    """
    return (
        fraction_used >= min(PROBE_TIME_FRACTIONS.values()) and fraction_used >= PROBE_TIME_FRACTIONS[leading_phase()]
    )


class TimeBudget:
    """A listener of the search that knows when its trials' time is over; without a budget it never is.

    It is not over before one epoch has ended, so that there is something to keep, or one trial has failed before. The
    time that the search has taken is kept in a file, so that a resumed search has what is left.
    """

    def __init__(
        self,
        budget_s: float | None,
        elapsed_file: Path,
        has_reruns: bool = False,
        has_progress: bool = False,
        previous_s: float = 0.0,
    ) -> None:
        """Take the budget and where the time is kept.

        Args:
            budget_s: from the start of this process to its end, earlier parts counted; None for as long as it takes.
            spent: the file with the seconds that the search has taken.
            finals: whether a share of the time is kept for them.
            has_begun: whether there is something to keep already.
            before_s: what earlier parts of the search took.
        """
        self._elapsed_file = elapsed_file
        self._previous_s = previous_s
        self._process_s = _process_start()
        self._start_s = time.time()
        self._has_reruns = has_reruns
        left_s = None if budget_s is None else max(0.0, budget_s - previous_s)
        self._ends_s = None if left_s is None else self._process_s + left_s
        self._deadline_s = None if left_s is None else self._process_s + left_s - finalize_reserve_s(left_s)
        self._has_progress = threading.Event()
        if has_progress:
            self._has_progress.set()

    @property
    def ends_s(self) -> float | None:
        """When the command should have ended, in seconds since 1970; None without a budget."""
        return self._ends_s

    @property
    def fraction_used(self) -> float:
        """How much of the trials' time is over: 0 at its beginning and without a budget, 1 and more at its end."""
        if self._deadline_s is None:
            return 0.0
        given_s = self._deadline_s - self._start_s
        return (time.time() - self._start_s) / given_s if given_s > 0 else math.inf

    @property
    def exploration_exhausted(self) -> bool:
        """Whether no new settings are to be tried."""
        return self._has_progress.is_set() and self.fraction_used >= (
            1 - RERUN_TIME_FRACTION if self._has_reruns else 1.0
        )

    @property
    def is_exhausted(self) -> bool:
        """Whether the trials must end."""
        return self.fraction_used >= 1 and self._has_progress.is_set()

    def has_time_for(self, result: TrialRecord) -> bool:
        """Return whether there is time to train an ended trial again."""
        return self._deadline_s is None or time.time() + RERUN_SAFETY_FACTOR * result.seconds < self._deadline_s

    @contextmanager
    def call_at_deadline(self, on_deadline: Callable[[], None]) -> Iterator[None]:
        """Within: ``ring`` is called once, from another thread, when the time is over."""
        ended = threading.Event()

        def wait() -> None:
            if self._deadline_s is None or ended.wait(max(0.0, self._deadline_s - time.time())):
                return
            self._has_progress.wait()
            if not ended.is_set():
                on_deadline()

        thread = threading.Thread(target=wait, daemon=True, name="search-clock")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            self._has_progress.set()
            thread.join()

    def on_trial_start(self, result: TrialRecord) -> None:
        """Do nothing."""

    def on_epoch_end(self, result: TrialRecord, report: TrialReport) -> None:
        """Note that there is something to keep."""
        self._has_progress.set()
        self._save()

    def on_trial_end(self, result: TrialRecord, report: TrialReport | None) -> None:
        """Note that the trials run: a search whose trials all fail before their first epoch has an end, too."""
        self._has_progress.set()
        self._save()

    def _save(self) -> None:
        with contextlib.suppress(OSError):  # on a full disk a resumed search has a little more time
            write_atomically(self._elapsed_file, f"{self._previous_s + time.time() - self._process_s:.1f}".encode())


def load_elapsed_s(path: Path) -> float:
    """Return the seconds that a search has taken, as its clock kept them; 0 where it kept none."""
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return 0.0


def _process_start() -> float:
    """Return when this process began, in seconds since 1970: imports and the reading of pictures count."""
    import psutil

    return float(psutil.Process().create_time())
