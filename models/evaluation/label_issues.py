"""Images whose label is probably wrong: confident learning on predictions of models that did not see the image.

Northcutt et al., "Confident Learning: Estimating Uncertainty in Dataset Labels", Journal of Artificial Intelligence
Research 70, 2021 (cleanlab).

Shapes: n images, k classes, f features.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.evaluation.calibration import softmax
from models.evaluation.metrics import Floats, Labels

Rows = npt.NDArray[np.int64]
NUM_NEIGHBORS = 3
CHUNK_SIZE = 256  # images whose neighbors are found at once


class LabelIssue(NamedTuple):
    """An image whose label is probably wrong.

    Attributes:
        row: the image.
        likely: the class that the model prefers.
        given_probability: out-of-fold probability of the given class.
        likely_probability: the same of the likely class.
        neighbors: rows of the most similar other images, if they are known.
    """

    row: int
    likely: int
    given_probability: float
    likely_probability: float
    neighbors: tuple[int, ...]


def find_label_issues(
    logits: Floats, labels: Labels, features: npt.NDArray[np.float32] | None = None
) -> list[LabelIssue]:
    """Return the images whose label is probably wrong, the most certain first.

    ``logits`` [n, k] are out of fold; images with NaN, which were never held out, are not judged. ``features`` [n, f]
    give the neighbors; without them there are none.
    """
    from cleanlab.filter import find_label_issues as cleanlab_issues

    judged = np.flatnonzero(~np.isnan(logits[:, 0]))
    present, compact = np.unique(labels[judged], return_inverse=True)
    if len(present) < 2:
        return []
    probabilities = softmax(logits[judged][:, present])
    found = cleanlab_issues(compact, probabilities, return_indices_ranked_by="normalized_margin", n_jobs=1)
    rows = judged[found]
    neighbors = np.zeros((len(rows), 0), dtype=np.int64) if features is None else _nearest(features, rows)
    likely = present[probabilities[found].argmax(axis=1)]
    given_probabilities = probabilities[found, compact[found]]
    return [
        LabelIssue(int(row), int(label), float(given), float(probability), tuple(nearest.tolist()))
        for row, label, given, probability, nearest in zip(
            rows, likely, given_probabilities, probabilities[found].max(axis=1), neighbors, strict=True
        )
        if label != labels[row]
    ]


def _nearest(features: npt.NDArray[np.float32], rows: Rows) -> Rows:
    """Return the most similar other images [m, 3] of m images, by the cosine of their centered features."""
    centered = features - features.mean(axis=0)
    centered /= np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-12)
    nearest = [np.zeros((0, NUM_NEIGHBORS), dtype=np.int64)]
    for chunk in np.array_split(rows, max(1, len(rows) // CHUNK_SIZE)):
        similarity = centered[chunk] @ centered.T
        similarity[np.arange(len(chunk)), chunk] = -np.inf
        nearest.append(np.argsort(-similarity, axis=1, kind="stable")[:, :NUM_NEIGHBORS])
    return np.concatenate(nearest)
