"""Streaming predictions to standard output."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.packaging.inference import Prediction


def write_predictions(predictions: Iterable[Prediction], output_format: str) -> int:
    """Print a line per prediction, as JSON or CSV; return the number of unreadable files."""
    # File names may be invalid Unicode: one of them must not stop the others.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    return _write_csv(predictions) if output_format == "csv" else _write_json(predictions)


def _write_json(predictions: Iterable[Prediction]) -> int:
    errors = 0
    for prediction in predictions:
        line: dict[str, object] = {"file": str(prediction.file)}
        if prediction.error:
            errors += 1
            line["error"] = prediction.error
        else:
            probabilities = dict(prediction.probabilities)
            line |= {"label": prediction.label, "score": prediction.score, "probabilities": probabilities}
        print(json.dumps(line, ensure_ascii=False), flush=True)
    return errors


def _write_csv(predictions: Iterable[Prediction]) -> int:
    errors = 0
    writer = csv.writer(sys.stdout)
    writer.writerow(["file", "label", "score", "error"])
    for prediction in predictions:
        errors += bool(prediction.error)
        score = prediction.score if not prediction.error else ""
        writer.writerow([prediction.file, prediction.label, score, prediction.error])
    return errors
