"""Classify images with a packaged model; print JSON Lines or CSV."""

from __future__ import annotations

import csv
import glob
import io
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from data.errors import DataError
from data.frozen_model import FrozenModel
from data.text import pluralize
from tuning.cli.parser import OutputPath, Several

if TYPE_CHECKING:
    from models.packaging.inference import Prediction

EXAMPLE = "freezeline predict models:/photos@champion 'new/*.jpg' more/photos one.png"
POSITIONALS = ("model", "files")

DIGITS = 6  # of probabilities in the output


class Options(FrozenModel):
    """The options of ``predict``."""

    model: str = Field(min_length=1, description="URI of the packaged model: models:/NAME@champion or runs:/ID/model")
    files: Several = Field(
        min_length=1, description="images, folders (all files in them) or patterns such as 'new/*.jpg'"
    )
    reject: float = Field(
        1.0,
        gt=0,
        le=1,
        description="leave the label empty if the novelty is above this number: 0.99 keeps 99% of the images that are "
        "like those of training; 1: keep all",
    )
    format: Literal["json", "csv"] = Field("json", description="one JSON object per line, or CSV with a header")
    explain: OutputPath = Field(
        "", description="folder to write an overlay of each image to: the evidence for its label, in color"
    )


def run(options: Options, _mlflow_run_id: str | None) -> int:
    """Print a line for each image; if an image cannot be read, print the reason and return exit status 1."""
    from models.packaging.inference import predict_files
    from tuning.registry.candidate_store import load_model
    from tuning.ui.console import progress_bar
    from tuning.workflows.explain import create_folder, write_overlays

    files = [file for name in options.files for file in find_files(name)]
    folder = create_folder(options.explain) if options.explain else None
    model = load_model(options.model)
    with progress_bar(use_stderr=True) as progress:
        predictions = predict_files(model, files, progress, options.reject)
        if folder:
            predictions = write_overlays(predictions, options.model, files, folder)
        num_errors = write_predictions(predictions, options.format)
    if folder:
        print(f"{pluralize(len(files) - num_errors, 'overlay')} written to {folder}", file=sys.stderr)
    return 1 if num_errors else 0


def find_files(text: str) -> list[Path]:
    """Return the files that ``text`` names: one file, all visible files below a folder, or the matches of a pattern.

    Raises:
        DataError: no file matches.
    """
    from data.sources.files import walk

    path = Path(os.path.expanduser(text))  # noqa: PTH111  # Path.expanduser raises for an unknown user
    if path.is_dir():
        files = [file for file in walk(path) if file.is_file()]  # follows links, as tune and audit do
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


def write_predictions(predictions: Iterable[Prediction], output_format: str) -> int:
    """Print a line per prediction, as JSON or CSV; return the number of unreadable files."""
    # File names may be invalid Unicode: one of them must not stop the others.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    write = _write_csv if output_format == "csv" else _write_json
    return write(iter(predictions))


def _write_json(predictions: Iterator[Prediction]) -> int:
    num_errors = 0
    for prediction in predictions:
        num_errors += bool(prediction.error)
        print(json.dumps(_json_fields(prediction), ensure_ascii=False), flush=True)
    return num_errors


def _write_csv(predictions: Iterator[Prediction]) -> int:
    """Write a header and a row per prediction; the first readable image determines the columns of the classes.

    There is a column ``overlay`` if this image has one.
    """
    first = list(_until_readable(predictions))
    has_overlays = bool(first and first[-1].overlay)
    classes = [name for name, _ in first[-1].probabilities] if first else []
    writer = csv.writer(sys.stdout)
    overlay_column = ["overlay"] if has_overlays else []
    columns = ["file", "label", "score", "error", "novelty", *(f"probability_{name}" for name in classes)]
    writer.writerow([*columns, *overlay_column])
    num_errors = 0
    for prediction in itertools.chain(first, predictions):
        num_errors += bool(prediction.error)
        score = "" if prediction.error else _rounded(prediction.score)
        probabilities = [str(_rounded(value)) for _, value in prediction.probabilities] or [""] * len(classes)
        novelty = "" if prediction.novelty is None else _rounded(prediction.novelty)
        overlay = [prediction.overlay] if has_overlays else []
        writer.writerow([prediction.file, prediction.label, score, prediction.error, novelty, *probabilities, *overlay])
    return num_errors


def _until_readable(predictions: Iterator[Prediction]) -> Iterator[Prediction]:
    for prediction in predictions:
        yield prediction
        if not prediction.error:
            return


def _rounded(probability: float) -> float:
    """Return a probability with ``DIGITS`` significant digits."""
    return float(f"{probability:.{DIGITS}g}")


def _json_fields(prediction: Prediction) -> dict[str, object]:
    if prediction.error:
        return {"file": str(prediction.file), "error": prediction.error}
    return {
        "file": str(prediction.file),
        "label": prediction.label,
        "score": _rounded(prediction.score),
        **({} if prediction.novelty is None else {"novelty": _rounded(prediction.novelty)}),
        "probabilities": {name: _rounded(value) for name, value in prediction.probabilities},
        **({"overlay": str(prediction.overlay)} if prediction.overlay else {}),
    }
