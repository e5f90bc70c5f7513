"""Classify images with a packaged model; print JSON Lines or CSV."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from data.errors import DataError
from data.frozen_model import FrozenModel
from tuning.cli.parser import parse

EXAMPLE = "python -m tuning predict --model models:/digits@champion 'photos/*.jpg' more/photos one.png"


def _as_tuple(files: object) -> object:
    """Return a single name as a tuple; it is not split, because a file name may contain any separator."""
    return (files,) if isinstance(files, str) else files


class Options(FrozenModel):
    """The options of ``predict``."""

    model: str = Field(min_length=1, description="URI of the packaged model: models:/NAME@champion or runs:/ID/model")
    files: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        min_length=1,
        description="image, folder (all its files) or pattern such as 'new/*.jpg'; to give several, omit --files",
    )
    format: Literal["json", "csv"] = Field("json", description="one JSON object per line, or CSV with a header")


def parse_options(arguments: Sequence[str]) -> Options:
    """Return the options; positional arguments are ``files``."""
    files: list[str] = []
    options: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--"):
            files.append(argument)
            continue
        options.append(argument)
        if "=" not in argument and rest:
            options.append(rest.pop(0))
    return parse(Options, options, **({"files": tuple(files)} if files else {}))


def run(options: Options, _mlflow_run_id: str | None) -> int:
    """Print a line for each image; if an image cannot be read, print the reason and return exit status 1."""
    from models.packaging.inference import predict_files
    from tuning.registry.candidate_store import load_model
    from tuning.tracking.connection import connect
    from tuning.ui.progress_bar import progress_bar
    from tuning.ui.tables.predictions import write_predictions

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
