"""The logits of an ensemble: of the weighted mean of its networks' probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]


def combine_logits(logits: Sequence[Floats], weights: Sequence[float]) -> Floats:
    """Return log(sum_m weight_m * softmax(logits_m)) [n, k] of the logits [n, k] of networks m.

    The logits of a single network are returned unchanged. The packaged graph computes the same.
    """
    if len(logits) == 1:
        return logits[0]
    terms = [special.log_softmax(each, axis=1) + np.log(weight) for each, weight in zip(logits, weights, strict=True)]
    return np.asarray(special.logsumexp(terms, axis=0))
