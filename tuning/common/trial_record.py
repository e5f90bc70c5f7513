"""What is known of one trial: a value that the ledger writes down and everyone else reads."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from data.frozen_model import FrozenModel
from models.trial_config import TrialConfig
from tuning.common.names import OBJECTIVE_METRIC, VARIANT

if TYPE_CHECKING:
    pass

TrialStatus = Literal["running", "complete", "pruned", "failed"]
TrialOrigin = Literal["default", "warm_start", "probe", "fine-tune", "sampler", "rerun"]


class TrialRecord(FrozenModel):
    """What is known of one trial so far.

    Attributes:
        trial_uid: ties the ledger's trial, Ray's and MLflow's run together.
        number: of Optuna's trial.
        origin: who chose its settings. The first default is the recipe's, others those of variants that the sweep
            leaves out. The sweep's are probes, the best of them is fine-tuned, all others are the sampler's. A final
            trains one of the best again with another seed.
        start: its place among the starts that the ledger was given, if it is one of them.
        of: of a final, the trial that it trains again.
        reason: how it ended, in words.
        config: all that is needed to train it again.
        settings: what was searched, under the names that the user knows.
        facts: what became known once its network was built.
        history: the metrics of its epochs, from the first.
    """

    trial_uid: str
    number: int
    origin: TrialOrigin
    queue_index: int | None = None
    rerun_of: str = ""
    status: TrialStatus
    reason: str
    config: TrialConfig
    settings: dict[str, ParamValue]
    runtime_info: dict[str, ParamValue]
    history: tuple[dict[str, float], ...] = ()

    @property
    def epochs(self) -> int:
        """How many epochs it has ended."""
        return len(self.history)

    @property
    def best_epoch(self) -> int:
        """The epoch with the highest score; among equals with the lowest loss; 0 before the first."""
        return max(range(1, self.epochs + 1), key=lambda epoch: _sort_key(self.history[epoch - 1]), default=0)

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of its best epoch; empty before the first."""
        return self.history[self.best_epoch - 1] if self.history else {}

    @property
    def score(self) -> float | None:
        """Validation balanced accuracy of the best epoch, or None before the first epoch ended."""
        return self.metrics.get(OBJECTIVE_METRIC)

    @property
    def scores(self) -> tuple[float, ...]:
        """Validation balanced accuracy of each epoch."""
        return tuple(metrics[OBJECTIVE_METRIC] for metrics in self.history)

    @property
    def seconds(self) -> float:
        """How long its epochs took."""
        return sum(metrics.get("epoch_s", 0.0) for metrics in self.history)

    @property
    def variant(self) -> str:
        """The name of the recipe's variant that it is of; empty without variants."""
        return str(self.settings.get(VARIANT, ""))

    @property
    def is_eligible(self) -> bool:
        """Whether it may be the best: it has a score, did not fail afterwards, and is no other trial's final."""
        return bool(self.history) and self.status != "failed" and self.origin != "rerun"

    @property
    def sort_key(self) -> tuple[float, float]:
        """What the best is chosen by: the highest score; among equals the lowest loss of its epoch."""
        return _sort_key(self.metrics)


def _sort_key(metrics: dict[str, float]) -> tuple[float, float]:
    return metrics.get(OBJECTIVE_METRIC, 0.0), -metrics.get("val_loss", math.inf)


ParamValue = str | int | float


class TrialReport(FrozenModel):
    """What a worker says: after each epoch, and once when the trial is over.

    ``blameless`` says of a failure that the trial's settings had no part in it.
    """

    status: Literal["running", "complete", "failed"]
    epoch: int
    metrics: dict[str, float] = Field(default_factory=dict)
    is_best: bool = False
    runtime_info: dict[str, str | int | float] = Field(default_factory=dict)
    reason: str = ""
    traceback: str = ""
    is_infrastructure_failure: bool = False
