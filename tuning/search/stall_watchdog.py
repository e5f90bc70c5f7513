"""Detecting a stall of Ray Tune: trials were submitted, but no worker runs any of them.

Workers show signs of life by modifying a file in the folder of the search, which all nodes share.

Seen once, on a busy machine, with Tune's ``reuse_actors``: a trial was pruned while the worker of another was starting;
the next trial never got a worker, and Tune waited for it indefinitely.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tuning.common.background import background_thread
from tuning.common.trial_record import TrialCallback, TrialRecord, TrialReport

STALL_TIMEOUT_S = 300.0
POLL_INTERVAL_S = 5.0
MIN_HEARTBEAT_INTERVAL_S = 60.0  # between the heartbeats of a trial


class HeartbeatSender:
    """Modifies ``file`` when it is called, at most once per ``MIN_HEARTBEAT_INTERVAL_S``."""

    def __init__(self, file: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._next_s = clock()

    def __call__(self) -> None:
        """Send a heartbeat if one is due."""
        if self._clock() >= self._next_s:
            self._next_s = self._clock() + MIN_HEARTBEAT_INTERVAL_S
            with contextlib.suppress(OSError):  # a full disk
                self._file.touch()


def last_heartbeat(file: Path) -> int:
    """Return the time of the latest heartbeat by the file system's clock; 0 if there is none."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


class StallWatchdog(TrialCallback):
    """Tracks the submitted trials and the heartbeats of their workers, which modify ``heartbeat_file``.

    Attributes:
        is_stalled: whether Tune has stalled since ``watch`` was entered last.
    """

    def __init__(self, heartbeat_file: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.is_stalled = False
        self._heartbeat_file = heartbeat_file
        self._clock = clock
        self._open_uids: set[str] = set()
        self._seen_ns = last_heartbeat(heartbeat_file)
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
        """Return whether trials are open and no worker has sent a heartbeat for ``STALL_TIMEOUT_S``.

        False before a first heartbeat: on a cluster the first workers may take long to start. Time is measured by the
        driver's clock, because the clocks of the nodes may differ.
        """
        heartbeat_ns = last_heartbeat(self._heartbeat_file)
        if heartbeat_ns != self._seen_ns:
            self._has_workers = True
            self._active_s = self._clock()
        self._seen_ns = heartbeat_ns
        return self._has_workers and bool(self._open_uids) and self._clock() - self._active_s > STALL_TIMEOUT_S

    @contextmanager
    def watch(self, on_stall: Callable[[], None]) -> Iterator[None]:
        """Context manager that calls ``on_stall`` once, in another thread, when Tune has stalled.

        Earlier submissions and heartbeats are forgotten, because those trials are submitted again.
        """
        self.is_stalled = False
        self._open_uids.clear()
        self._seen_ns = last_heartbeat(self._heartbeat_file)

        def poll(ended: threading.Event) -> None:
            while not ended.wait(POLL_INTERVAL_S):
                if self.check():
                    self.is_stalled = True
                    on_stall()
                    return

        with background_thread("stall-watchdog", poll):
            yield
