"""The file with a trial's predictions for images that it was not trained on.

Shapes: n images, k classes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.atomic_write import write_atomically
from models.evaluation.metrics import Floats


@dataclass(frozen=True)
class HeldOutLogits:
    """Logits of images that a trial was not trained on.

    Attributes:
        val: [n, k] of the validation images.
        oof: [n, k] of the training images, followed by the validation images, each from a fit without it ("out of
            fold"); NaN for images that no fit left out. None if the trial was not cross-validated.
    """

    val: Floats
    oof: Floats | None = None


def save_predictions(path: Path, logits: HeldOutLogits) -> None:
    """Write the logits to ``path`` atomically, as float32."""
    buffer = io.BytesIO()
    val = logits.val.astype(np.float32)
    if logits.oof is None:
        np.savez(buffer, val=val)
    else:
        np.savez(buffer, val=val, oof=logits.oof.astype(np.float32))
    write_atomically(path, buffer.getvalue())


def load_predictions(path: Path) -> HeldOutLogits | None:
    """Return the logits in ``path``; None if the file does not exist."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            values = {name: arrays[name].astype(np.float64) for name in arrays.files}
    except FileNotFoundError:
        return None
    return HeldOutLogits(values["val"], values.get("oof"))
