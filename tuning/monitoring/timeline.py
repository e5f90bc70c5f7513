"""Numbers of a model in use over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tuning.monitoring.records import Records
from tuning.monitoring.reference import REJECTED

MAX_BINS = 30
MAX_CLASSES = 20  # whose shares are logged


class TimeBin(NamedTuple):
    """An interval of time: its middle as Unix time in seconds, and the metrics of its answers."""

    time_s: float
    metrics: dict[str, float]


def time_bins(window: Records, classes: Sequence[str]) -> list[TimeBin]:
    """Return the metrics of the answers in at most 30 equal intervals; those without an answer are left out."""
    edges = np.linspace(window.times[0], window.times[-1], MAX_BINS + 1)
    numbers = np.clip(np.searchsorted(edges, window.times, side="right") - 1, 0, MAX_BINS - 1)
    return [
        TimeBin(float(edges[number : number + 2].mean()), metrics_of(window.select(numbers == number), classes))
        for number in np.unique(numbers)
    ]


def metrics_of(records: Records, classes: Sequence[str]) -> dict[str, float]:
    """Return the number of answers, means, latencies and, of few classes, the share of each."""
    metrics = {
        "images": float(len(records.times)),
        "mean_confidence": float(records.confidence.mean()),
        "median_latency_ms": float(np.median(records.latency_ms)),
        "p99_latency_ms": float(np.quantile(records.latency_ms, 0.99)),
    }
    if records.novelty is not None:
        metrics["mean_novelty"] = float(records.novelty.mean())
        metrics["rejected"] = float((records.novelty > REJECTED).mean())
    if len(classes) <= MAX_CLASSES:
        shares = np.bincount(records.classes, minlength=len(classes)) / len(records.times)
        metrics |= {f"share_{name}": float(share) for name, share in zip(classes, shares, strict=True)}
    return metrics
