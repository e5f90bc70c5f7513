"""A model's answers, printed as they come."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.packaging.inference import Prediction


def write(answers: Iterable[Prediction], form: str) -> int:
    """Print a line for each answer, as JSON or CSV; return how many files could not be read."""
    # A file's name may be no text at all; that must not end the others.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    return _write_csv(answers) if form == "csv" else _write_json(answers)


def _write_json(answers: Iterable[Prediction]) -> int:
    errors = 0
    for answer in answers:
        line: dict[str, object] = {"file": str(answer.file)}
        if answer.error:
            errors += 1
            line["error"] = answer.error
        else:
            line |= {"label": answer.label, "score": answer.score, "probabilities": dict(answer.probabilities)}
        print(json.dumps(line, ensure_ascii=False), flush=True)
    return errors


def _write_csv(answers: Iterable[Prediction]) -> int:
    errors = 0
    writer = csv.writer(sys.stdout)
    writer.writerow(["file", "label", "score", "error"])
    for answer in answers:
        errors += bool(answer.error)
        writer.writerow([answer.file, answer.label, answer.score if not answer.error else "", answer.error])
    return errors
