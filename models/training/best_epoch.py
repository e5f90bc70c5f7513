"""Which epoch of a trial is the best, by a smoothed curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

WINDOW = 3  # epochs of the trailing mean


class EpochScore(NamedTuple):
    """What an epoch is compared by: the validation balanced accuracy, then the validation loss."""

    balanced_accuracy: float
    loss: float


def best_epoch(scores: Sequence[EpochScore]) -> int:
    """Return the first epoch, from 1, with the highest trailing mean of balanced accuracy; 0 without epochs.

    Ties are broken by the lowest trailing mean of the loss. The maximum of the single points would be an epoch that
    was lucky on few validation images, the more so the more epochs there are.
    """
    windows = {epoch: scores[max(0, epoch - WINDOW) : epoch] for epoch in range(1, len(scores) + 1)}
    return max(windows, key=lambda epoch: _mean(windows[epoch]), default=0)


def _mean(window: Sequence[EpochScore]) -> tuple[float, float]:
    mean_accuracy = sum(score.balanced_accuracy for score in window) / len(window)
    # Rounded, because equal means of different sums would differ in the last bits.
    return round(mean_accuracy, 9), -sum(score.loss for score in window) / len(window)
