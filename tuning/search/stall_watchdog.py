"""Detecting a stall of Ray Tune: trials were submitted, but no worker starts any of them.

Seen once, on a busy machine, with Tune's ``reuse_actors``: a trial was pruned while the worker of another was starting;
the next trial never got a worker, and Tune waited for it indefinitely.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tuning.common.background import background_thread
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_callback import TrialCallback

if TYPE_CHECKING:
    from tuning.common.trial_record import TrialRecord, TrialReport

STALL_TIMEOUT_S = 180.0  # applies after a first trial has ended, when workers already exist
POLL_INTERVAL_S = 5.0


class StallWatchdog(TrialCallback):
    """Tracks which trials were submitted to Ray and which of them a worker has started."""

    def __init__(self, paths: SearchPaths, timeout_s: float = STALL_TIMEOUT_S) -> None:
        """Create the watchdog.

        Args:
            paths: with the markers that workers create when they start a trial.
            timeout_s: seconds without a start after which Tune counts as stalled.
        """
        self._paths = paths
        self._timeout_s = timeout_s
        self._submitted_s: dict[str, float] = {}
        self._has_finished_trial = False

    def on_trial_start(self, trial: TrialRecord) -> None:
        """Record the submission of a trial, and delete the marker of an earlier worker."""
        self._delete_marker(trial)
        self._submitted_s[trial.trial_uid] = time.monotonic()

    def on_trial_end(self, trial: TrialRecord, report: TrialReport | None) -> None:
        """Stop waiting for the trial."""
        self._submitted_s.pop(trial.trial_uid, None)
        self._has_finished_trial = True
        self._delete_marker(trial)

    def _delete_marker(self, trial: TrialRecord) -> None:
        with contextlib.suppress(OSError):
            self._paths.started_marker(trial.trial_uid).unlink(missing_ok=True)

    @property
    def is_stalled(self) -> bool:
        """Whether all submitted trials have waited longer than the timeout and no worker has started any of them.

        False until a first trial has ended: on a cluster the first workers may take long to start.
        """
        submitted_s = dict(self._submitted_s)
        if not submitted_s or not self._has_finished_trial:
            return False
        if any(self._paths.started_marker(uid).exists() for uid in submitted_s):
            return False
        return time.monotonic() - max(submitted_s.values()) > self._timeout_s

    @contextmanager
    def watch(self, on_stall: Callable[[], None], poll_interval_s: float = POLL_INTERVAL_S) -> Iterator[None]:
        """Context manager that calls ``on_stall`` once, in another thread, when Tune has stalled.

        Earlier submissions are forgotten, because those trials are submitted again.
        """
        self._submitted_s.clear()

        def poll(ended: threading.Event) -> None:
            while not ended.wait(poll_interval_s):
                if self.is_stalled:
                    on_stall()
                    return

        with background_thread("stall-watchdog", poll):
            yield
