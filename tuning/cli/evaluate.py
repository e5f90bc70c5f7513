"""Evaluate a packaged model on images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import Field

from data.sources.options import DataOptions
from tuning.cli.parser import OutputPath

EXAMPLE = "freezeline evaluate models:/photos@champion new_photos/"
POSITIONALS = ("model", "data")
MAX_SKIPPED = 3  # files that are listed


class Options(DataOptions):
    """The options of ``evaluate``."""

    model: str = Field(min_length=1, description="URI of the packaged model: models:/NAME@champion or runs:/ID/model")
    split: Literal["test", "val", "train", "all"] = Field(
        "all", description="all labeled images, or one of the splits that training uses"
    )
    json_file: OutputPath = Field("", alias="json", description="file to write all numbers to")
    report_file: OutputPath = Field(
        "", alias="report", description="HTML file to write charts, per-class metrics and the worst errors to"
    )


def run(options: Options, _mlflow_run_id: str | None) -> int:
    """Print the scores with confidence intervals, the per-class metrics and the most frequent confusions."""
    from data.text import pluralize
    from tuning.registry.candidate_store import load_model
    from tuning.reporting.page import build_evaluation
    from tuning.ui.console import print_tables
    from tuning.ui.tables.evaluation import class_table, confusion_table, score_lines
    from tuning.workflows.evaluate import evaluate, load_evaluation_data

    model = load_model(options.model)
    dataset = load_evaluation_data(options, options.split)
    content = evaluate(model, options.model, dataset, options.split)
    notes = [f"not measured: {file.path} {file.reason}" for file in dataset.skipped[:MAX_SKIPPED]]
    if len(dataset.skipped) > MAX_SKIPPED:
        notes.append(f"not measured: {len(dataset.skipped) - MAX_SKIPPED} more; freezeline audit lists them")
    num_seen = 0 if options.split != "all" else len(dataset.development)
    if num_seen:
        notes.append(f"{num_seen} of these images are in the train or val split; --split test leaves them out")
    print_tables(
        f"{content.model} on {pluralize(content.num_images, 'image')} of {content.data} ({content.split})",
        *notes,
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
