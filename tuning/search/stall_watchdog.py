"""Whether Ray has lost a trial that it was handed: nothing trains, and what was handed over never begins.

Seen once, on a busy machine, with Tune's ``reuse_actors``: a trial that was pruned while another's worker was still
starting; the next trial never got a worker, and Tune waited for it for ever.
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

if TYPE_CHECKING:
    from tuning.common.trial_record import TrialRecord, TrialReport

STALL_TIMEOUT_S = 180.0  # once a worker has begun a trial: the next ones are handed to workers that are there
POLL_INTERVAL_S = 5.0


class StallWatchdog:
    """A listener of the search that knows which trials were handed to Ray, and which of them a worker has begun."""

    def __init__(self, paths: SearchPaths, timeout_s: float = STALL_TIMEOUT_S) -> None:
        """Take where workers leave their sign, and how long to wait for it."""
        self._paths = paths
        self._timeout_s = timeout_s
        self._submitted_s: dict[str, float] = {}
        self._has_finished_trial = False

    def on_trial_start(self, result: TrialRecord) -> None:
        """Note that a trial was handed over, and take away the sign of an earlier worker."""
        self._delete_marker(result)
        self._submitted_s[result.trial_uid] = time.monotonic()

    def on_epoch_end(self, result: TrialRecord, report: TrialReport) -> None:
        """Do nothing."""

    def on_trial_end(self, result: TrialRecord, report: TrialReport | None) -> None:
        """Note that there is nothing to wait for any more."""
        self._submitted_s.pop(result.trial_uid, None)
        self._has_finished_trial = True
        self._delete_marker(result)

    def _delete_marker(self, result: TrialRecord) -> None:
        with contextlib.suppress(OSError):
            self._paths.started_marker(result.trial_uid).unlink(missing_ok=True)

    @property
    def is_stalled(self) -> bool:
        """Whether trials were handed over, all of them long ago, and no worker has begun any of them.

        Never before a first trial has ended: on a cluster the first workers may take long to come.
        """
        handed_s = dict(self._submitted_s)
        if (
            not handed_s
            or not self._has_finished_trial
            or any(self._paths.started_marker(uid).exists() for uid in handed_s)
        ):
            return False
        return time.monotonic() - max(handed_s.values()) > self._timeout_s

    @contextmanager
    def watch(self, on_stall: Callable[[], None], poll_interval_s: float = POLL_INTERVAL_S) -> Iterator[None]:
        """Within: ``ring`` is called once, from another thread, when trials are lost.

        What was handed over before is forgotten: it is handed over anew.
        """
        self._submitted_s.clear()

        def watch(over: threading.Event) -> None:
            while not over.wait(poll_interval_s):
                if self.is_stalled:
                    on_stall()
                    return

        with background_thread("handover", watch):
            yield
