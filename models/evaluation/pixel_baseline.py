"""The raw-pixel baseline: the accuracy that a pretrained network has to beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data.dataset.stratified_parts import stratified_parts

MAX_TRAINING_IMAGES = 5_000  # with more, the fit would take minutes
BASELINE_SIDE_PX = 8  # images are averaged down to 8 x 8 px: 192 features, few enough for small data sets


def pixel_baseline_accuracy(
    train: tuple[NDArray[np.uint8], NDArray[np.int64]], test: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> float:
    """Return the test accuracy of logistic regression on images averaged down to 8 x 8 px.

    Both arguments are pixels [n, s, s, 3] and labels [n]. Of many training images, a stratified part is used.
    """
    from sklearn.linear_model import LogisticRegression

    pixels, labels = train
    if parts := stratified_parts(labels, MAX_TRAINING_IMAGES):
        rows = parts.rows(0)
        pixels, labels = pixels[rows], labels[rows]
    model = LogisticRegression(max_iter=1000)
    model.fit(_average_pool(pixels), labels)
    return float(model.score(_average_pool(test[0]), test[1]))


def _average_pool(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the means of equal areas [n, 8 * 8 * 3], from 0 to 1; a remainder at the right and bottom is dropped."""
    count, window = len(pixels), pixels.shape[1] // BASELINE_SIDE_PX
    cropped = pixels[:, : window * BASELINE_SIDE_PX, : window * BASELINE_SIDE_PX].reshape(
        count, BASELINE_SIDE_PX, window, BASELINE_SIDE_PX, window, 3
    )
    return np.asarray(cropped.mean(axis=(2, 4), dtype=np.float32) / 255).reshape(count, -1)
