"""Detecting a stall of Ray Tune: trials were submitted, but no worker runs any of them.

Seen once, on a busy machine, with Tune's ``reuse_actors``: a trial was pruned while the worker of another was starting;
the next trial never got a worker, and Tune waited for it indefinitely.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tuning.common.background import background_thread
from tuning.common.trial_callback import TrialCallback

if TYPE_CHECKING:
    from tuning.common.trial_record import TrialRecord, TrialReport
    from tuning.search.heartbeat import Heartbeat

STALL_TIMEOUT_S = 300.0
POLL_INTERVAL_S = 5.0


class StallWatchdog(TrialCallback):
    """Tracks the submitted trials and the heartbeats of their workers.

    Attributes:
        is_stalled: whether Tune has stalled since ``watch`` was entered last.
    """

    def __init__(
        self, last_heartbeat: Callable[[], Heartbeat | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Create the watchdog.

        Args:
            last_heartbeat: returns the search's latest heartbeat.
            clock: returns seconds.
        """
        self.is_stalled = False
        self._last_heartbeat = last_heartbeat
        self._clock = clock
        self._open_uids: set[str] = set()
        self._seen: Heartbeat | None = None
        self._has_workers = False
        self._active_s = clock()  # of the latest submission or heartbeat

    def on_trial_start(self, trial: TrialRecord) -> None:
        """Expect heartbeats of the trial."""
        self._active_s = self._clock()  # first, because another thread checks
        self._open_uids.add(trial.trial_uid)

    def on_trial_end(self, trial: TrialRecord, report: TrialReport | None) -> None:
        """Stop expecting heartbeats of the trial."""
        self._open_uids.discard(trial.trial_uid)
        self._has_workers |= report is not None

    def check(self) -> bool:
        """Return whether no worker of any open trial has sent a heartbeat for ``STALL_TIMEOUT_S``.

        False before a first heartbeat: on a cluster the first workers may take long to start. Time is measured by the
        driver's clock, because the clocks of the nodes may differ.
        """
        heartbeat = self._last_heartbeat()
        if heartbeat is not None and heartbeat != self._seen and heartbeat.trial_uid in self._open_uids:
            self._has_workers = True
            self._active_s = self._clock()
        self._seen = heartbeat
        return self._has_workers and bool(self._open_uids) and self._clock() - self._active_s > STALL_TIMEOUT_S

    @contextmanager
    def watch(self, on_stall: Callable[[], None]) -> Iterator[None]:
        """Context manager that calls ``on_stall`` once, in another thread, when Tune has stalled.

        Earlier submissions and heartbeats are forgotten, because those trials are submitted again.
        """
        self.is_stalled = False
        self._open_uids.clear()
        self._seen = self._last_heartbeat()

        def poll(ended: threading.Event) -> None:
            while not ended.wait(POLL_INTERVAL_S):
                if self.check():
                    self.is_stalled = True
                    on_stall()
                    return

        with background_thread("stall-watchdog", poll):
            yield
