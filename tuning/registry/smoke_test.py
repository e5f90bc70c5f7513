"""Smoke test of a version: it must load by its name in a clean process and reproduce its reference predictions."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from data.errors import FreezelineError
from data.frozen_model import FrozenModel

NUM_IMAGES = 8
TOLERANCE = 1e-3  # largest allowed difference of a probability
TIMEOUT_S = 600
RETRY_HINT = "no alias was moved; fix the reported problem and run promote again"

# Run by python -I -B in an empty folder; -B: no __pycache__ in the package. This project cannot be imported, even if it
# is installed: an application that loads the model does not have it.
SUBPROCESS_SCRIPT = """
import base64, json, sys
sys.modules.update(dict.fromkeys(("data", "models", "tuning", "freezeline")))
request = json.load(sys.stdin)
import mlflow
model = mlflow.pyfunc.load_model(request["model_uri"])
frame = model.predict([base64.b64decode(image) for image in request["images"]])
json.dump(frame.drop(columns=["label", "score", "error"]).values.tolist(), sys.stdout)
"""


class ModelLoadError(FreezelineError):
    """A version cannot be loaded by its name, or its predictions differ from those when it was packaged."""


class ReferencePredictions(FrozenModel):
    """Images as PNG in base64, at the first network's input size, and the probabilities that a package must return."""

    images: tuple[str, ...]
    probabilities: tuple[tuple[float, ...], ...]


def as_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return an image uint8 [s, s, 3] as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def build_reference_predictions(files: Sequence[bytes], probabilities: npt.NDArray[np.float64]) -> ReferencePredictions:
    """Return the reference predictions for image files [n] and their probabilities [n, k]."""
    images = tuple(base64.b64encode(file).decode() for file in files)
    return ReferencePredictions(images=images, probabilities=tuple(tuple(map(float, row)) for row in probabilities))


def verify_model_loads(model_uri: str, reference: ReferencePredictions, tracking_uri: str) -> None:
    """Load a model in a clean process with pickle disabled, and compare its predictions with the reference.

    Raises:
        ModelLoadError: the model cannot be loaded in the clean process, or its predictions differ.
    """
    environment = {**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_TRACKING_URI": tracking_uri}
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(  # noqa: S603
                [sys.executable, "-I", "-B", "-c", SUBPROCESS_SCRIPT],
                input=json.dumps({"model_uri": model_uri, "images": reference.images}),
                capture_output=True,
                text=True,
                cwd=folder,
                env=environment,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ModelLoadError(
                f"{model_uri} must load and predict in a clean process within {TIMEOUT_S} s, but did not; {RETRY_HINT}"
            ) from None
    if done.returncode:
        message = (done.stderr.strip().splitlines() or [f"exited with status {done.returncode} and without output"])[-1]
        raise ModelLoadError(f"{model_uri} must load in a clean process, but failed: {message}; {RETRY_HINT}")
    _compare(model_uri, np.array(reference.probabilities), np.array(json.loads(done.stdout), dtype=np.float64))


def _compare(model_uri: str, expected: npt.NDArray[np.float64], actual: npt.NDArray[np.float64]) -> None:
    if expected.shape != actual.shape:
        raise ModelLoadError(
            f"{model_uri} must return probabilities of shape {list(expected.shape)}, got {list(actual.shape)}; "
            f"{RETRY_HINT}"
        )
    difference = float(np.nan_to_num(np.abs(expected - actual), nan=1.0).max(initial=0.0))
    if difference > TOLERANCE:
        raise ModelLoadError(
            f"{model_uri} must reproduce its reference predictions within {TOLERANCE:g}, but a probability differs by "
            f"{difference:.2g}; {RETRY_HINT}"
        )
