"""The minutes of a search: when its trials must end so that the command ends in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuning.search.ledger import TrialResult
    from tuning.trial import TrialReport

# What comes after the trials: the export, measured at 25 to 40 s on two cores, the test pictures and the registry.
# A short budget leaves it a share only, and ends later than it says rather than with nothing tried.
RESERVE_S = 45.0
RESERVE_SHARE = 0.3

SWEEP_SHARE = 0.5  # of the trials' time that the sweep may take: with many pictures features take long to make


def reserve_s(budget_s: float) -> float:
    """Return the part of a budget that is kept for what comes after the trials, in seconds."""
    return min(RESERVE_S, RESERVE_SHARE * budget_s)


class Clock:
    """A listener of the search that knows when its trials' time is over; without a budget it never is.

    It is not over before one epoch has ended, so that there is something to keep, or one trial has failed before.
    """

    def __init__(self, budget_s: float | None) -> None:
        """Take the seconds from the start of this process to its end; None for as long as it takes."""
        self._began = time.time()
        self._deadline = None if budget_s is None else _process_began() + budget_s - reserve_s(budget_s)
        self._has_begun = threading.Event()

    @property
    def sweep_over(self) -> bool:
        """Whether no more probes are to be started."""
        return self._deadline is not None and time.time() >= self._began + SWEEP_SHARE * (self._deadline - self._began)

    @property
    def over(self) -> bool:
        """Whether the trials must end."""
        return self._deadline is not None and time.time() >= self._deadline and self._has_begun.is_set()

    @contextmanager
    def ringing(self, ring: Callable[[], None]) -> Iterator[None]:
        """Within: ``ring`` is called once, from another thread, when the time is over."""
        ended = threading.Event()

        def wait() -> None:
            if self._deadline is None or ended.wait(max(0.0, self._deadline - time.time())):
                return
            self._has_begun.wait()
            if not ended.is_set():
                ring()

        thread = threading.Thread(target=wait, daemon=True, name="search-clock")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            self._has_begun.set()
            thread.join()

    def trial_started(self, result: TrialResult) -> None:
        """Do nothing."""

    def epoch_ended(self, result: TrialResult, report: TrialReport) -> None:
        """Note that there is something to keep."""
        self._has_begun.set()

    def trial_ended(self, result: TrialResult, report: TrialReport | None) -> None:
        """Note that the trials run: a search whose trials all fail before their first epoch has an end, too."""
        self._has_begun.set()


def _process_began() -> float:
    """Return when this process began, in seconds since 1970: imports and the reading of pictures count."""
    import psutil

    return float(psutil.Process().create_time())
