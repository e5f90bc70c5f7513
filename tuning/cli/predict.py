"""Classify images with a packaged model; print JSON Lines or CSV."""

from __future__ import annotations

import csv
import glob
import io
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from data.errors import DataError
from data.frozen_model import FrozenModel
from tuning.cli.parser import Several

if TYPE_CHECKING:
    from models.packaging.inference import Prediction

EXAMPLE = "freezeline predict models:/photos@champion 'new/*.jpg' more/photos one.png"
POSITIONALS = ("model", "files")


class Options(FrozenModel):
    """The options of ``predict``."""

    model: str = Field(min_length=1, description="URI of the packaged model: models:/NAME@champion or runs:/ID/model")
    files: Several = Field(
        min_length=1, description="images, folders (all files in them) or patterns such as 'new/*.jpg'"
    )
    format: Literal["json", "csv"] = Field("json", description="one JSON object per line, or CSV with a header")


def run(options: Options, _mlflow_run_id: str | None) -> int:
    """Print a line for each image; if an image cannot be read, print the reason and return exit status 1."""
    from models.packaging.inference import predict_files
    from tuning.registry.candidate_store import load_model
    from tuning.tracking.connection import connect
    from tuning.ui.console import progress_bar

    files = [file for name in options.files for file in find_files(name)]
    connect()
    model = load_model(options.model)
    with progress_bar(use_stderr=True) as progress:
        return 1 if write_predictions(predict_files(model, files, progress), options.format) else 0


def find_files(text: str) -> list[Path]:
    """Return the files that ``text`` names: one file, all visible files below a folder, or the matches of a pattern.

    Raises:
        DataError: no file matches.
    """
    path = Path(os.path.expanduser(text))  # noqa: PTH111  # Path.expanduser raises for an unknown user
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(path))]
    elif path.exists():
        files = [path]
    else:
        files = [Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).is_file()]  # noqa: PTH207  # Path.glob refuses an absolute pattern
    if not files:
        raise DataError(
            f"files must be an image file, a folder of files or a pattern that matches files, got {text!r}; "
            "check the spelling"
        )
    return sorted(files)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def write_predictions(predictions: Iterable[Prediction], output_format: str) -> int:
    """Print a line per prediction, as JSON or CSV; return the number of unreadable files."""
    # File names may be invalid Unicode: one of them must not stop the others.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    num_errors = 0
    writer = csv.writer(sys.stdout)
    if output_format == "csv":
        writer.writerow(["file", "label", "score", "error"])
    for prediction in predictions:
        num_errors += bool(prediction.error)
        if output_format == "csv":
            score = "" if prediction.error else prediction.score
            writer.writerow([prediction.file, prediction.label, score, prediction.error])
        else:
            print(json.dumps(_json_fields(prediction), ensure_ascii=False), flush=True)
    return num_errors


def _json_fields(prediction: Prediction) -> dict[str, object]:
    if prediction.error:
        return {"file": str(prediction.file), "error": prediction.error}
    return {
        "file": str(prediction.file),
        "label": prediction.label,
        "score": prediction.score,
        "probabilities": dict(prediction.probabilities),
    }
