"""The time budget of a search: the deadline of its trials, so that the command ends in time."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from data.atomic_write import write_atomically
from tuning.common.background import background_thread
from tuning.common.trial_record import TrialCallback, TrialRecord, TrialReport

# What follows the trials imports the same libraries and builds the same networks as what precedes them, and is as slow
# on a busy machine. Measured on two cores: 20 to 25 s before the trials; after them, 25 s for the serving costs and the
# export, unless they are done while the trials run (``tuning.workflows.work_ahead``), and 9 to 13 s for registration,
# the check in a clean process and the report. With one core busy, 44 to 56 s in all for searches of two minutes.
FINALIZE_PER_STARTUP, MIN_FINALIZE_S, MAX_FINALIZE_S = 0.7, 8.0, 30.0
EXPORT_PER_STARTUP, MIN_EXPORT_S, MAX_EXPORT_S = 0.7, 7.0, 30.0
# Before its latency is known, the package is expected to evaluate an image in this share of the time in which a probe
# computes its features on one core: an ensemble has up to three networks, and uses all cores.
EVALUATION_SHARE = 0.7
MAX_RESERVE_FRACTION = 0.5  # of the budget: a search of a minute should rather take longer than have no trials
POLL_INTERVAL_S = 0.2


class Elapsed(NamedTuple):
    """Elapsed seconds of a search: those that count against its current budget, and those of earlier budgets."""

    counted_s: float = 0.0
    earlier_s: float = 0.0

    @classmethod
    def load(cls, path: Path) -> Elapsed:
        """Return the saved elapsed seconds of a search; 0 without a valid file."""
        try:
            return cls(*map(float, path.read_text().split()))
        except (OSError, ValueError, TypeError):
            return cls()

    @property
    def total_s(self) -> float:
        """The seconds of all sessions."""
        return self.counted_s + self.earlier_s

    def save(self, path: Path) -> None:
        """Save the seconds to a file."""
        with contextlib.suppress(OSError):  # disk full: a resumed search gets slightly more time
            write_atomically(path, f"{self.counted_s:.1f} {self.earlier_s:.1f}".encode())


NOTHING_ELAPSED = Elapsed()


def estimate_finalize_s(startup_s: float, export_has_begun: bool = False) -> float:
    """Return the expected seconds after the trials without the evaluation of the test images.

    With ``export_has_begun`` the likely winner is being exported, and little of that remains.
    """
    fixed_s = min(MAX_FINALIZE_S, max(MIN_FINALIZE_S, FINALIZE_PER_STARTUP * startup_s))
    if not export_has_begun:
        fixed_s += min(MAX_EXPORT_S, max(MIN_EXPORT_S, EXPORT_PER_STARTUP * startup_s))
    return fixed_s


def estimate_evaluation_s(num_test_images: int, s_per_image: Sequence[float], latency_ms: float | None = None) -> float:
    """Return the expected seconds for evaluating the test images, by the latency of the exported winner if it is known.

    ``s_per_image`` are those of the linear probes that compute features. A third of the way up the sorted values is
    taken: the first probe of each worker also loads libraries, and would dominate the mean of a few.
    """
    if latency_ms is not None:
        return num_test_images * latency_ms / 1000
    typical_s = sorted(s_per_image)[(len(s_per_image) - 1) // 3] if s_per_image else 0.0
    return num_test_images * EVALUATION_SHARE * typical_s


class TimeBudget(TrialCallback):
    """Measures the elapsed time and determines the deadline of the trials, if there is a budget.

    The deadline leaves time for what follows the trials, estimated by what the search has measured so far. The time is
    not exhausted before one epoch or one trial has ended, so that a search has a result if it can have one.
    The elapsed time is saved to a file, so that a resumed search continues with the remaining time.

    Attributes:
        budget_s: the budget in seconds, including the sessions that count against it; None without a budget.
        ends_s: the expected end of the command as Unix time in seconds; None without a budget.
        export_has_begun: whether the likely winner is being exported, or has been: the end needs less time.
        latency_ms: of the likely winner, once it is exported.
    """

    def __init__(
        self,
        budget_s: float | None,
        elapsed_file: Path,
        started_s: float,
        *,
        num_test_images: int = 0,
        num_export_images: int = 0,
        has_progress: bool = False,
        previous: Elapsed = NOTHING_ELAPSED,
    ) -> None:
        """Start the time budget.

        Args:
            budget_s: seconds from the start of the command to its end, including earlier sessions that count against
                it; None: no budget.
            elapsed_file: the file with the elapsed seconds of the search.
            started_s: start of the command as Unix time in seconds.
            num_test_images: number of images on which the winner will be evaluated.
            num_export_images: number of images that its export evaluates, unless it happens while the trials run.
            has_progress: whether an epoch or a trial has ended in an earlier session.
            previous: elapsed seconds of earlier sessions.
        """
        self.budget_s = budget_s
        self._elapsed_file = elapsed_file
        self._previous = previous
        self._command_s = started_s
        self._start_s = time.time()
        remaining_s = None if budget_s is None else max(0.0, budget_s - previous.counted_s)
        self.ends_s = None if remaining_s is None else self._command_s + remaining_s
        self._remaining_s = remaining_s
        self._num_test_images, self._num_export_images = num_test_images, num_export_images
        self._s_per_image: list[float] = []
        self.export_has_begun = False
        self.latency_ms: float | None = None
        self._has_progress = threading.Event()
        if has_progress:
            self._has_progress.set()

    def start_trials(self) -> None:
        """Start the trials' time: what precedes the first trial counts in no phase's share."""
        self._start_s = time.time()

    @property
    def _deadline_s(self) -> float | None:
        """The Unix time in seconds at which the trials must end; None without a budget."""
        if self.ends_s is None or self._remaining_s is None:
            return None
        startup_s = self._start_s - self._command_s
        num_images = self._num_test_images + (self._num_export_images if self.latency_ms is None else 0)
        evaluation_s = estimate_evaluation_s(num_images, self._s_per_image, self.latency_ms)
        finalize_s = evaluation_s + estimate_finalize_s(startup_s, self.export_has_begun)
        return self.ends_s - min(finalize_s, MAX_RESERVE_FRACTION * self._remaining_s)

    @property
    def fraction_used(self) -> float:
        """The used fraction of the trials' time: 0 at the start and without a budget, 1 or more after the deadline."""
        if self._deadline_s is None:
            return 0.0
        available_s = self._deadline_s - self._start_s
        return (time.time() - self._start_s) / available_s if available_s > 0 else math.inf

    @property
    def seconds_left(self) -> float:
        """The rest of the trials' time in seconds; infinite without a budget."""
        return math.inf if self._deadline_s is None else self._deadline_s - time.time()

    @property
    def is_exhausted(self) -> bool:
        """Whether the trials must end."""
        return self.fraction_used >= 1 and self._has_progress.is_set()

    @contextmanager
    def call_at_deadline(self, on_deadline: Callable[[], None]) -> Iterator[None]:
        """Context manager that calls ``on_deadline`` once, in another thread, when the trials' time is exhausted."""

        def wait(ended: threading.Event) -> None:
            while not self.is_exhausted:  # polled, because the deadline moves
                if self.budget_s is None or ended.wait(POLL_INTERVAL_S):
                    return
            if not ended.is_set():
                on_deadline()

        try:
            with background_thread("time-budget", wait):
                yield
        finally:
            self._has_progress.set()

    def on_epoch_end(self, trial: TrialRecord, report: TrialReport) -> None:
        """Record progress and save the elapsed time."""
        self._has_progress.set()
        self.save()

    def on_trial_end(self, trial: TrialRecord, report: TrialReport | None) -> None:
        """Record progress and save the elapsed time, so that a search whose trials all fail ends too."""
        is_measured = trial.config.is_probe and trial.config.network.head_features == "all"
        if is_measured and "images_per_s" in trial.metrics:
            self._s_per_image.append(1 / trial.metrics["images_per_s"])
        self._has_progress.set()
        self.save()

    @property
    def elapsed_s(self) -> float:
        """The seconds since the start of the command, and those of earlier sessions that count against the budget."""
        return self._previous.counted_s + time.time() - self._command_s

    @property
    def elapsed(self) -> Elapsed:
        """The elapsed seconds of all sessions."""
        return Elapsed(self.elapsed_s, self._previous.earlier_s)

    def save(self) -> None:
        """Save the elapsed time for a resumed search."""
        self.elapsed.save(self._elapsed_file)
