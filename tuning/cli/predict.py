"""Classify images with a packaged model; print JSON Lines or CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from data.frozen_model import FrozenModel
from tuning.cli.parser import parse

EXAMPLE = "python -m tuning predict --model models:/digits@champion 'photos/*.jpg' more/photos one.png"


def _as_tuple(files: object) -> object:
    """Return a single name as a tuple; it is not split, because a file name may contain any separator."""
    return (files,) if isinstance(files, str) else files


class PredictOptions(FrozenModel):
    """The options of ``predict``."""

    model: str = Field(min_length=1, description="URI of the packaged model: models:/NAME@champion or runs:/ID/model")
    files: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        min_length=1,
        description="image, folder (all its files) or pattern such as 'new/*.jpg'; to give several, omit --files",
    )
    format: Literal["json", "csv"] = Field("json", description="one JSON object per line, or CSV with a header")


OPTIONS = PredictOptions


def run(arguments: Sequence[str], _mlflow_run_id: str | None) -> int:
    """Print a line for each image; if an image cannot be read, print the reason and return exit status 1."""
    names, rest = split_arguments(arguments)
    options = parse(PredictOptions, rest, **({"files": names} if names else {}))
    from models.packaging.inference import predict_files
    from tuning.registry.candidate_store import load_model
    from tuning.tracking.connection import connect
    from tuning.ui.progress_bar import progress_bar
    from tuning.ui.tables.predictions import write_predictions
    from tuning.workflows.predict import find_files

    files = [file for name in options.files for file in find_files(name)]
    connect()
    model = load_model(options.model)
    with progress_bar(use_stderr=True) as progress:
        return 1 if write_predictions(predict_files(model, files, progress), options.format) else 0


def split_arguments(arguments: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return the positional arguments, and the options with their values."""
    positional: list[str] = []
    options: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--"):
            positional.append(argument)
            continue
        options.append(argument)
        if "=" not in argument and rest:
            options.append(rest.pop(0))
    return tuple(positional), options
