"""The tables that a report's page contains as CSV files, and the commands that download what is too large for it."""

from __future__ import annotations

import base64
import csv
import io
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from data.dataset.dataset import Sample
    from models.evaluation.metrics import Labels, Probabilities

MAX_EMBEDDED_BYTES = 40_000  # base64 makes them a third larger
LEADERBOARD, TEST_PREDICTIONS = "leaderboard.csv", "test_predictions.csv"  # artifacts of the parent run


class Table(NamedTuple):
    """A CSV file: an artifact of the parent run, which the page also contains if it is not too large."""

    name: str
    csv: str

    @property
    def data_uri(self) -> str:
        """The file as the address of a link; empty if it is too large."""
        content = self.csv.encode("utf-8", "backslashreplace")
        if len(content) > MAX_EMBEDDED_BYTES:
            return ""
        return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(content).decode()}"

    def command(self, run_id: str) -> str:
        """Return the command that downloads the artifact into the working directory."""
        return f"mlflow artifacts download --run-id {run_id} --artifact-path {self.name} --dst-path ."


def package_command(name: str, version: int | None) -> str:
    """Return the command that downloads the files of a version, with its ONNX graph; empty without a version."""
    if version is None:
        return ""
    source, folder = shlex.quote(f"models:/{name}/{version}/artifacts"), shlex.quote(f"{name}-{version}")
    return f"mlflow artifacts download --artifact-uri {source} --dst-path {folder}"


def predictions_csv(
    samples: Sequence[Sample], classes: Sequence[str], probabilities: Probabilities, labels: Labels
) -> str:
    """Return a row for each test image: its classes and the probability of each class, with 6 significant digits.

    Row i of ``probabilities`` [n, k] and ``labels`` [n] belongs to ``samples[i]``. A file name that is invalid Unicode
    is escaped.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["file", "true_class", "predicted_class", "is_correct", *classes])
    predicted = probabilities.argmax(axis=1).tolist()
    for sample, label, prediction, row in zip(samples, labels.tolist(), predicted, probabilities, strict=True):
        numbers = [f"{probability:.6g}" for probability in row]
        writer.writerow([sample.path, classes[label], classes[prediction], int(label == prediction), *numbers])
    return out.getvalue().encode("utf-8", "backslashreplace").decode()
