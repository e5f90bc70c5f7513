"""Classify pictures with a packaged model: one JSON object a line, or CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from data.values import Value
from tuning.options import parse

EXAMPLE = "python -m tuning predict --model models:/digits@champion --files 'photos/*.jpg'"


class PredictOptions(Value):
    """The options of ``predict``."""

    model: str = Field(min_length=1, description="address of the packaged model: models:/NAME@champion, runs:/ID/model")
    files: str = Field(
        min_length=1, description="a picture, a folder (all files in it), or a pattern such as 'new/*.jpg'"
    )
    format: Literal["json", "csv"] = Field("json", description="one JSON object a line, or CSV with a head line")


OPTIONS = PredictOptions


def run(arguments: Sequence[str]) -> int:
    """Print a line for each picture; a picture that can't be read gets its reason, and exit status 1 at the end."""
    options = parse(PredictOptions, arguments)
    from tuning.predicting import find_files, predict_files
    from tuning.registry import load_model
    from tuning.tracking.parent import connect, take_run_id
    from tuning.views.predictions import write

    take_run_id()
    files = find_files(options.files)
    connect()
    return 1 if write(predict_files(load_model(options.model), files), options.format) else 0
