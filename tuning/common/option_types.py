"""Types that options are parsed to and that other layers use; light, because ``--help`` imports them."""

from __future__ import annotations

from typing import Literal

from data.frozen_model import FrozenModel

ParamValue = str | int | float
Metric = Literal["balanced_accuracy", "accuracy"]


class Gate(FrozenModel):
    """The conditions of a promotion; the recipe's options of these names define and describe them."""

    metric: Metric
    min_gain: float
    significance: float
    max_class_loss: float
    max_latency_ms: float | None = None
    max_mb: float | None = None
