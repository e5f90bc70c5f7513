"""Evaluate a packaged model on images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import Field

from data.sources.options import DataOptions
from tuning.cli.parser import OutputPath

EXAMPLE = "freezeline evaluate models:/photos@champion photos/ --split test"
POSITIONALS = ("model", "data")


class Options(DataOptions):
    """The options of ``evaluate``."""

    model: str = Field(min_length=1, description="URI of the packaged model: models:/NAME@champion or runs:/ID/model")
    split: Literal["test", "val", "train", "all"] = Field("test", description="split to evaluate on")
    json_file: OutputPath = Field("", alias="json", description="file to write all numbers to")
    report_file: OutputPath = Field(
        "", alias="report", description="HTML file to write charts, per-class metrics and the worst errors to"
    )


def run(options: Options, _mlflow_run_id: str | None) -> int:
    """Print the scores with confidence intervals, the per-class metrics and the most frequent confusions."""
    from data.load_dataset import load_dataset
    from data.text import pluralize
    from tuning.registry.candidate_store import load_model
    from tuning.reporting.page import build_evaluation
    from tuning.ui.console import print_tables
    from tuning.ui.tables.evaluation import class_table, confusion_table, score_lines
    from tuning.workflows.evaluate import evaluate

    content = evaluate(load_model(options.model), options.model, load_dataset(options), options.split)
    print_tables(
        f"{content.model} on {pluralize(content.num_images, 'image')} of {content.data} ({content.split})",
        *score_lines(content.scores, content.intervals),
        f"{'calibration error':18} {content.calibration_error:.4f}",
        "",
        class_table(content.scores),
        "",
        confusion_table(content.scores),
    )
    if options.json_file:
        Path(options.json_file).write_text(json.dumps({**content.to_dict(), "data": options.data}, indent=2))
    if options.report_file:
        Path(options.report_file).write_text(build_evaluation(content))
    return 0
