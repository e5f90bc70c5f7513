"""Classify pictures with a packaged model: one JSON object a line, or CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from data.frozen_model import FrozenModel
from tuning.cli.parser import parse

EXAMPLE = "python -m tuning predict --model models:/digits@champion 'photos/*.jpg' more/photos one.png"


def _words(given: object) -> object:
    """Read one text as one name: a file's name may hold any letter, so that nothing can part two."""
    return (given,) if isinstance(given, str) else given


class PredictOptions(FrozenModel):
    """The options of ``predict``."""

    model: str = Field(min_length=1, description="address of the packaged model: models:/NAME@champion, runs:/ID/model")
    files: Annotated[tuple[str, ...], BeforeValidator(_words)] = Field(
        min_length=1,
        description="a picture, a folder (all files in it), or a pattern such as 'new/*.jpg'; "
        "several of them are written without --files",
    )
    format: Literal["json", "csv"] = Field("json", description="one JSON object a line, or CSV with a head line")


OPTIONS = PredictOptions


def run(arguments: Sequence[str]) -> int:
    """Print a line for each picture; a picture that can't be read gets its reason, and exit status 1 at the end."""
    named, rest = _parted(arguments)
    options = parse(PredictOptions, rest, **({"files": named} if named else {}))
    from models.packaging.inference import predict_files
    from tuning.registry.candidate_store import load_model
    from tuning.tracking.connection import connect, pop_run_id_from_env
    from tuning.ui.progress_bar import ProgressBar
    from tuning.ui.tables.predictions import write
    from tuning.workflows.predict import find_files

    pop_run_id_from_env()
    files = [file for text in options.files for file in find_files(text)]
    connect()
    model = load_model(options.model)
    with ProgressBar(on_errors=True) as progress:
        return 1 if write(predict_files(model, files, progress), options.format) else 0


def _parted(arguments: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return the words that belong to no option, and the options with their values."""
    named: list[str] = []
    options: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            named.append(word)
            continue
        options.append(word)
        if "=" not in word and rest:
            options.append(rest.pop(0))
    return tuple(named), options
