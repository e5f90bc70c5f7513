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
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from data.errors import FreezelineError
from data.frozen_model import FrozenModel
from models.packaging.recording import VARIABLE as RECORD_VARIABLE

NUM_IMAGES = 8
TOLERANCE = 1e-3  # largest allowed difference of a probability
TIMEOUT_S = 600
RETRY_HINT = "no alias was moved; fix the reported problem and run promote again"

# Run by python -I -B in an empty folder; -B: no __pycache__ in the package. This project cannot be imported, even if it
# is installed: an application that loads the model does not have it.
SUBPROCESS_SCRIPT = """
import base64, json, sys
sys.modules.update(dict.fromkeys(("data", "models", "tuning", "freezeline")))
import mlflow.pyfunc
request = json.load(sys.stdin)
model = mlflow.pyfunc.load_model(request["model_uri"])
frame = model.predict([base64.b64decode(image) for image in request["images"]])
classes = frame.drop(columns=["label", "score", "error", "novelty"], errors="ignore")
json.dump(classes.values.tolist(), sys.stdout)
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


class CleanProcess:
    """A Python process without this project and with pickle disabled, which loads one model.

    It imports MLflow at once, which takes seconds: start it in advance. It is a context manager, which ends it.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-B", "-c", SUBPROCESS_SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self._folder.name,
            env={
                **{name: value for name, value in os.environ.items() if name != RECORD_VARIABLE},
                "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
                "MLFLOW_TRACKING_URI": tracking_uri,
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def predict(self, model_uri: str, images: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return the probabilities of images, PNG in base64.

        Raises:
            ModelLoadError: the model cannot be loaded, or does not predict.
        """
        request = json.dumps({"model_uri": model_uri, "images": images})
        try:
            output, errors = self._process.communicate(request, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise ModelLoadError(
                f"{model_uri} must load and predict in a clean process within {TIMEOUT_S} s, but did not; {RETRY_HINT}"
            ) from None
        status = self._process.returncode
        if status:
            message = (errors.strip().splitlines() or [f"exited with status {status} and without output"])[-1]
            raise ModelLoadError(f"{model_uri} must load in a clean process, but failed: {message}; {RETRY_HINT}")
        return np.array(json.loads(output), dtype=np.float64)


def verify_model_loads(
    model_uri: str, reference: ReferencePredictions, tracking_uri: str, process: CleanProcess | None = None
) -> None:
    """Load a model in a clean process, by default a new one, and compare its predictions with the reference.

    Raises:
        ModelLoadError: the model cannot be loaded in the clean process, or its predictions differ.
    """
    with process or CleanProcess(tracking_uri) as clean:
        _compare(model_uri, np.array(reference.probabilities), clean.predict(model_uri, reference.images))


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
