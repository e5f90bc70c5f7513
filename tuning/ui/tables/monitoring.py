"""What ``monitor`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from data.text import pluralize
from tuning.monitoring.drift import MIN_EFFECT, SIGNIFICANCE, DriftTest
from tuning.ui.tables.text_table import TextTable

if TYPE_CHECKING:
    from tuning.monitoring.live_accuracy import LiveAccuracy


def comparison_table(tests: Sequence[DriftTest]) -> TextTable:
    """Return a row for each property."""
    title = f"Compared with the test images (drift: p-value at most {SIGNIFICANCE}, effect at least {MIN_EFFECT})"
    rows = [
        [each.name, f"{each.effect:.3f}", f"{each.p_value:.2g}", "yes" if each.is_drift else "no"] for each in tests
    ]
    return TextTable(title, ("property", "effect", "p-value", "drift"), rows, text_columns={"property", "drift"})


def accuracy_line(live: LiveAccuracy) -> str:
    """Return the accuracy in use with its interval, and what was proven."""
    return (
        f"accuracy in use {live.accuracy:.4f} [{live.low:.4f}, {live.high:.4f}] of "
        f"{pluralize(live.num_images, 'labeled image')}; at least {live.proven:.4f} was proven on test images"
    )
