"""Measure a packaged model on pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from data.values import Value
from tuning.options import parse

EXAMPLE = "python -m tuning evaluate --model models:/digits@champion --data demo"


class EvaluateOptions(Value):
    """The options of ``evaluate``."""

    model: str = Field(min_length=1, description="address of the packaged model: models:/NAME@champion, runs:/ID/model")
    data: str = Field("demo", min_length=1, description="a folder of class folders, or 'demo'")
    split: Literal["test", "val", "train", "all"] = Field("test", description="which of its pictures")
    json_file: str = Field("", alias="json", description="a file that all numbers are written to")


OPTIONS = EvaluateOptions


def run(arguments: Sequence[str]) -> int:
    """Print the model's scores with their intervals, per class, and what is taken for what."""
    options = parse(EvaluateOptions, arguments)
    from data.dataset import load_dataset
    from models.calibration import calibration_error
    from models.evaluate import interval, score
    from tuning.candidate import INTERVALS
    from tuning.predicting import probabilities_of
    from tuning.registry import load_model
    from tuning.tracking.parent import connect, take_run_id
    from tuning.views.evaluation import class_table, confusion_table, score_lines
    from tuning.views.lines import show

    take_run_id()
    connect()
    dataset = load_dataset(options.data)
    samples = dataset.samples if options.split == "all" else dataset.split(options.split)
    probabilities, labels = probabilities_of(load_model(options.model), dataset, samples)
    scores = score(probabilities, labels, dataset.classes)
    intervals: dict[str, tuple[float, float]] = {
        metric: interval(metric, probabilities, labels) for metric in INTERVALS
    }
    error = calibration_error(probabilities, labels)
    show(
        f"{options.model} on {len(samples)} pictures of {dataset.name}",
        class_table(scores),
        confusion_table(scores),
        *score_lines(scores, intervals),
        f"{'calibration error':18} {error:.4f}",
    )
    if options.json_file:
        report = {
            "model": options.model,
            "data": options.data,
            "data_fingerprint": dataset.fingerprint,
            "scores": scores.model_dump(),
            "intervals": intervals,
            "calibration_error": error,
        }
        Path(options.json_file).write_text(json.dumps(report, indent=2))
    return 0
