"""Proof that a version loads by its name alone and answers as when it was packaged."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from data.errors import FreezelineError
from data.frozen_model import FrozenModel

NUM_IMAGES = 8
TOLERANCE = 1e-3  # of a probability; a logit of the package may differ from torch's by as much
TIMEOUT_S = 600
RETRY_HINT = "no alias was moved; mend what it says, then promote it again"

# Run by python -I in an empty folder: nothing of this project can be imported, and nothing is found by a lucky path.
SUBPROCESS_SCRIPT = """
import base64, json, sys
asked = json.load(sys.stdin)
import mlflow
model = mlflow.pyfunc.load_model(asked["model_uri"])
frame = model.predict([base64.b64decode(picture) for picture in asked["pictures"]])
json.dump(frame.drop(columns=["label", "score", "error"]).values.tolist(), sys.stdout)
"""


class ModelLoadError(FreezelineError):
    """A version that can't be loaded by its name, or answers otherwise than when it was packaged."""


class ReferencePredictions(FrozenModel):
    """Pictures with the answers that a package must give for them.

    Attributes:
        pictures: PNG files in base64, at the network's size.
        probabilities: of each picture, in the order of the package's classes.
    """

    images: tuple[str, ...]
    probabilities: tuple[tuple[float, ...], ...]


def as_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return a picture uint8 [s, s, 3] as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def build_reference_predictions(
    pictures: Sequence[bytes], probabilities: npt.NDArray[np.float64]
) -> ReferencePredictions:
    """Return the proof of picture files and the probabilities [n, k] that training gives for them."""
    texts = tuple(base64.b64encode(picture).decode() for picture in pictures)
    return ReferencePredictions(images=texts, probabilities=tuple(tuple(map(float, row)) for row in probabilities))


def verify_model_loads(model_uri: str, proof: ReferencePredictions, tracking_uri: str) -> None:
    """Load a model in a clean process, pickle forbidden, and compare its answers with the proof's.

    Raises:
        LoadBackError: it can't be loaded there, or answers otherwise; says which.
    """
    environment = {**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_TRACKING_URI": tracking_uri}
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(  # noqa: S603
                [sys.executable, "-I", "-c", SUBPROCESS_SCRIPT],
                input=json.dumps({"model_uri": model_uri, "pictures": proof.images}),
                capture_output=True,
                text=True,
                cwd=folder,
                env=environment,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ModelLoadError(
                f"{model_uri} must be loaded by a clean process within {TIMEOUT_S} s, but was not; {RETRY_HINT}"
            ) from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        raise ModelLoadError(
            f"a version must load anywhere, but {model_uri} can't be loaded by a clean process: {said}; {RETRY_HINT}"
        )
    _compare(model_uri, np.array(proof.probabilities), np.array(json.loads(done.stdout), dtype=np.float64))


def _compare(model_uri: str, expected: npt.NDArray[np.float64], found: npt.NDArray[np.float64]) -> None:
    if expected.shape != found.shape:
        raise ModelLoadError(
            f"{model_uri} must give {list(expected.shape)} probabilities, got {list(found.shape)}; {RETRY_HINT}"
        )
    difference = float(np.nan_to_num(np.abs(expected - found), nan=1.0).max(initial=0.0))
    if difference > TOLERANCE:
        raise ModelLoadError(
            f"{model_uri} must give the probabilities that were logged when it was packaged, but one differs by "
            f"{difference:.2g}, more than {TOLERANCE:g}; {RETRY_HINT}"
        )


def absolute_uri(tracking_uri: str) -> str:
    """Return a tracking URI that means the same in another folder."""
    path = tracking_uri.removeprefix("sqlite:///")
    if path == tracking_uri or path.startswith("/"):
        return tracking_uri
    return f"sqlite:///{Path(path).resolve()}"
