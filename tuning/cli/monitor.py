"""Compare the recorded answers of a registered model with those for its test images; exit status 3 on drift."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from data.frozen_model import FrozenModel
from tuning.cli.parser import OutputPath

EXAMPLE = "freezeline monitor photos records/ --days 1"
POSITIONALS = ("model", "records")


class Options(FrozenModel):
    """The options of ``monitor``."""

    model: str = Field(
        min_length=1, description="registered version: NAME (its champion), NAME@champion, NAME@3 or models:/NAME/3"
    )
    records: str = Field(min_length=1, description="the folder that FREEZELINE_RECORD named when the model was used")
    days: float = Field(7.0, gt=0, le=36_500, description="compare the answers of the last days")
    labels: str = Field(
        "", description="table of image files and labels that arrived later, as data accepts it: accuracy in use"
    )
    report_file: OutputPath = Field("", alias="report", description="HTML file to write the page to")


def run(options: Options, _mlflow_run_id: str | None) -> int:
    """Print a comparison for each property, log it in the experiment NAME-monitoring, and return 3 on drift."""
    from data.text import pluralize
    from tuning.common.exit_codes import DRIFT, FINISHED
    from tuning.monitoring.live_accuracy import read_labels
    from tuning.reporting.monitor_page import build_monitor_page
    from tuning.tracking.connection import connect_to_existing
    from tuning.ui.console import print_tables
    from tuning.ui.tables.monitoring import accuracy_line, comparison_table
    from tuning.workflows.monitor import alarms, check_window, load_monitored, log_window

    client = connect_to_existing()
    monitored = load_monitored(client, options.model)
    labels = read_labels(Path(options.labels).expanduser()) if options.labels else None
    content = check_window(monitored, Path(options.records).expanduser(), options.days, labels)
    page = build_monitor_page(content)
    run_id = log_window(client, monitored.candidate.name, content, page)
    if options.report_file:
        Path(options.report_file).write_text(page, encoding="utf-8")
    lines = [
        f"{content.model}: {content.headline}",
        f"{pluralize(content.num_images, 'answer')} from {content.begin} to {content.end} (UTC), run {run_id}",
        *([accuracy_line(content.live)] if content.live else []),
    ]
    print_tables(*lines, *([comparison_table(content.tests)] if content.tests else []))
    return DRIFT if alarms(content.tests, content.live) else FINISHED
