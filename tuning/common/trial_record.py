"""The record of a trial, written by the trial store, and the base class of callbacks of a search."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from data.frozen_model import FrozenModel
from models.training.best_epoch import EpochScore, best_epoch
from models.trial_config import TrialConfig
from tuning.common.names import OBJECTIVE_METRIC, VARIANT
from tuning.common.option_types import ParamValue

# "out of time": ended by the time budget of the search; "pruned": stopped by the scheduler.
TrialStatus = Literal["running", "complete", "out of time", "pruned", "failed"]
TrialOrigin = Literal["champion", "default", "probe", "fine_tune", "sampler", "rerun"]


RAN_TO_ITS_END = "ran to its end"  # the reason of a complete trial


class TrialRecord(FrozenModel):
    """The state of a trial.

    Attributes:
        trial_uid: identifies the trial in the trial store, in Ray and in MLflow.
        number: the number of the Optuna trial.
        origin: the source of its settings. ``default``: the defaults of the recipe, or of a variant that the linear
            probes do not cover. ``probe``: a linear probe. ``fine_tune``: the best probe, fine-tuned. ``sampler``: a
            proposal of the sampler. ``rerun``: one of the best trials with another seed. ``champion``: a network of
            the registered version that the search starts from.
        fixed_params: the parameters that its phase fixed, under their names in the study.
        rerun_of: the uid of the trial that it re-runs; empty if it is no re-run.
        reason: why it ended, as text.
        config: everything needed to train it again.
        settings: the searched settings by their option names.
        runtime_info: values known only after its network was built.
        history: the metrics of each completed epoch.
        started_s: Unix time of its start, or of its restart by a resumed search; None in a search of an older version.
        ended_s: Unix time of its end; None while it runs.
    """

    trial_uid: str
    number: int
    origin: TrialOrigin
    fixed_params: dict[str, ParamValue] = Field(default_factory=dict)
    rerun_of: str = ""
    status: TrialStatus
    reason: str
    config: TrialConfig
    settings: dict[str, ParamValue]
    runtime_info: dict[str, ParamValue]
    history: tuple[dict[str, float], ...] = ()
    started_s: float | None = None
    ended_s: float | None = None

    @property
    def counts_as_trial(self) -> bool:
        """Whether it counts towards the number of trials: linear probes and re-runs do not."""
        return not self.is_probe and self.origin != "rerun"

    @property
    def is_probe(self) -> bool:
        """Whether it is a linear probe of the sweep or of a champion."""
        return self.origin == "probe" or (self.origin == "champion" and self.config.is_probe)

    @property
    def epochs(self) -> int:
        """The number of completed epochs."""
        return len(self.history)

    @property
    def best_epoch(self) -> int:
        """The epoch with the highest trailing mean of the score (``models.training.best_epoch``), or 0."""
        return best_epoch([_epoch_score(metrics) for metrics in self.history])

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the best epoch; empty before the first epoch."""
        return self.history[self.best_epoch - 1] if self.history else {}

    @property
    def score(self) -> float | None:
        """The validation balanced accuracy of the best epoch; None before the first epoch."""
        return self.metrics.get(OBJECTIVE_METRIC)

    @property
    def scores(self) -> tuple[float, ...]:
        """The validation balanced accuracy of each epoch."""
        return tuple(metrics[OBJECTIVE_METRIC] for metrics in self.history)

    @property
    def seconds(self) -> float:
        """The total duration of its epochs in seconds."""
        return sum(metrics.get("epoch_s", 0.0) for metrics in self.history)

    @property
    def wall_s(self) -> float:
        """The seconds from its start to its end, with the time to build it and to compute features.

        At least those of its epochs: after a restart, or in a search of an older version, some times are unknown.
        """
        if self.started_s is None or self.ended_s is None:
            return self.seconds
        return max(self.ended_s - self.started_s, self.seconds)

    @property
    def has_all_epochs(self) -> bool:
        """Whether it has completed the epochs of its configuration."""
        return self.epochs >= self.config.fit.max_epochs

    @property
    def variant(self) -> str:
        """The name of its recipe variant; empty without variants."""
        return str(self.settings.get(VARIANT, ""))

    @property
    def is_eligible(self) -> bool:
        """Whether it can be the best trial: it has a score, did not fail, and is not a re-run."""
        return bool(self.history) and self.status != "failed" and self.origin != "rerun"

    @property
    def sort_key(self) -> tuple[float, float]:
        """The key that the best trial maximizes: the score, ties broken by the lowest loss."""
        score = _epoch_score(self.metrics)
        return score.balanced_accuracy, -score.loss


def _epoch_score(metrics: dict[str, float]) -> EpochScore:
    return EpochScore(metrics.get(OBJECTIVE_METRIC, 0.0), metrics.get("val_loss", math.inf))


class TrialReport(FrozenModel):
    """A report of a worker: one after each epoch, and one at the end of the trial.

    ``is_infrastructure_failure`` marks a failure that the trial's settings did not cause.
    """

    status: Literal["running", "complete", "failed"]
    epoch: int
    metrics: dict[str, float] = Field(default_factory=dict)
    is_best: bool = False
    runtime_info: dict[str, str | int | float] = Field(default_factory=dict)
    reason: str = ""
    traceback: str = ""
    is_infrastructure_failure: bool = False


class TrialCallback:
    """Hooks for the start, the epochs and the end of a trial; each does nothing unless it is overridden.

    They run in the driver's event loop, in the order of the callbacks, and must not block it.
    """

    def on_trial_start(self, trial: TrialRecord) -> None:
        """Handle a trial that is about to be submitted to Ray."""

    def on_epoch_end(self, trial: TrialRecord, report: TrialReport) -> None:
        """Handle an epoch; ``trial`` already includes it."""

    def on_trial_end(self, trial: TrialRecord, report: TrialReport | None) -> None:
        """Handle the end of a trial; ``report`` is None if its worker was lost."""
