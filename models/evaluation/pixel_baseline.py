"""What the raw pixels alone are worth: the number that a pretrained network has to beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BASELINE_SIDE_PX = 8  # px that pictures are averaged down to: 192 numbers each, as few pictures can bear


def pixel_baseline_accuracy(
    train: tuple[NDArray[np.uint8], NDArray[np.int64]], test: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> float:
    """Return the test accuracy of logistic regression on pictures averaged down to 8 x 8 px.

    Args:
        train: pixels [n, s, s, 3] and labels [n].
        test: the same of the test pictures.
    """
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=1000)
    model.fit(_shrink(train[0]), train[1])
    return float(model.score(_shrink(test[0]), test[1]))


def _shrink(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return [n, 8 * 8 * 3] means of equal areas, from 0 to 1; a remainder at the right and bottom is left out."""
    count, side = len(pixels), pixels.shape[1] // BASELINE_SIDE_PX
    whole = pixels[:, : side * BASELINE_SIDE_PX, : side * BASELINE_SIDE_PX].reshape(
        count, BASELINE_SIDE_PX, side, BASELINE_SIDE_PX, side, 3
    )
    return np.asarray(whole.mean(axis=(2, 4), dtype=np.float32) / 255).reshape(count, -1)
