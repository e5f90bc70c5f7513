"""Drift: whether the answers in a window differ from those for the test images by more than chance and a minimum.

Each property is compared on its own: the mix of predicted classes by a chi-squared test of homogeneity, all others by
the two-sample Kolmogorov-Smirnov test. The p-values are adjusted for their number (Benjamini and Hochberg 1995).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import stats

from tuning.monitoring.records import Records
from tuning.monitoring.reference import MonitoringReference

if TYPE_CHECKING:
    from models.evaluation.metrics import Floats

SIGNIFICANCE = 0.01  # of adjusted p-values: at most one quiet window in a hundred gives a false alarm
MIN_EFFECT = 0.1  # with thousands of images, unimportant differences are significant too
FEATURE = "feature "  # before the number of a coordinate
MIN_IMAGES = 30  # fewer say little: a difference must be large to be more than chance
MIN_EXPECTED = 5.0  # images of a class in a chi-squared test (Cochran's rule); rarer classes are taken together


class DriftTest(NamedTuple):
    """The comparison of one property.

    ``effect`` is the largest difference of the cumulative shares (Kolmogorov-Smirnov), for the mix of classes the share
    of images that would have to change their class (total variation distance). ``p_value`` is adjusted.
    """

    name: str
    effect: float
    p_value: float

    @property
    def is_feature(self) -> bool:
        """Whether the property is a coordinate of the features."""
        return self.name.startswith(FEATURE)

    @property
    def is_drift(self) -> bool:
        """Whether the difference is larger than chance explains, and large enough to matter."""
        return self.p_value <= SIGNIFICANCE and self.effect >= MIN_EFFECT


def compare(reference: MonitoringReference, window: Records, num_classes: int) -> list[DriftTest]:
    """Return a comparison of each property that both have; empty if the window has too few images."""
    if len(window.times) < MIN_IMAGES:
        return []
    compared = list(_compare(reference, window, num_classes))
    adjusted = stats.false_discovery_control([p_value for _, _, p_value in compared])
    return [
        DriftTest(name, effect, float(p_value)) for (name, effect, _), p_value in zip(compared, adjusted, strict=True)
    ]


def _compare(reference: MonitoringReference, window: Records, num_classes: int) -> Iterator[tuple[str, float, float]]:
    """Yield the name, the effect and the p-value of each property."""
    counts = [np.bincount(each.classes, minlength=num_classes).astype(np.float64) for each in (reference, window)]
    shares = [each / each.sum() for each in counts]
    yield "classes", float(abs(shares[0] - shares[1]).sum() / 2), _homogeneity(counts)
    yield "confidence", *_kolmogorov_smirnov(reference.confidence, window.confidence)
    if reference.novelty is not None and window.novelty is not None:
        yield "novelty", *_kolmogorov_smirnov(reference.novelty, window.novelty)
    if reference.summaries is not None and window.summaries is not None:
        columns = zip(reference.summaries.T, window.summaries.T, strict=True)
        for number, (before, now) in enumerate(columns, start=1):
            yield f"{FEATURE}{number}", *_kolmogorov_smirnov(before, now)


def _homogeneity(counts: Sequence[Floats]) -> float:
    """Return the p-value of the hypothesis that both counts [k] are of the same distribution."""
    table = np.stack(counts)
    expected = table.sum(axis=0) * table.sum(axis=1).min() / table.sum()
    is_rare = expected < MIN_EXPECTED
    table = np.column_stack([table[:, ~is_rare], table[:, is_rare].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    return float(stats.chi2_contingency(table, correction=False).pvalue) if table.shape[1] > 1 else 1.0


def _kolmogorov_smirnov(before: Floats, now: Floats) -> tuple[float, float]:
    result = stats.ks_2samp(before, now, method="asymp")
    return float(result.statistic), float(result.pvalue)
