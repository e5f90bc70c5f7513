"""What a package predicts for test images: the reference that records are compared with, stored in the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from models.evaluation.metrics import Floats


REJECTED = 0.99  # the novelty above which the share of images is reported


class MonitoringReference(NamedTuple):
    """Predictions [n]: class indices, probabilities, and with novelty the novelty [n] and feature summaries [n, 8]."""

    classes: npt.NDArray[np.int64]
    confidence: Floats
    novelty: Floats | None = None
    summaries: Floats | None = None


def load_reference(file: Path) -> MonitoringReference:
    """Return the reference in a package's ``reference.npz``."""
    with np.load(file, allow_pickle=False) as arrays:
        return MonitoringReference(**{name: arrays[name] for name in MonitoringReference._fields if name in arrays})
