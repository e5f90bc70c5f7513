"""Report the problems of a data set file by file, before training."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from data.sources.options import DataOptions
from tuning.cli.parser import OutputPath

EXAMPLE = "freezeline audit photos/ --json audit.json --sheets sheets/"
POSITIONALS = ("data",)


class Options(DataOptions):
    """The options of ``audit``."""

    json_file: OutputPath = Field("", alias="json", description="file to write the full audit to, with all file names")
    sheets: OutputPath = Field("", description="folder to write contact sheets to: related images side by side")


def run(options: Options, _mlflow_run_id: str | None) -> int:
    """Print the audit; findings do not change the exit status."""
    from data.audit.contact_sheets import contact_sheets
    from data.audit.report import audit
    from data.load_dataset import load_dataset
    from tuning.ui.console import print_tables, progress_bar

    with progress_bar() as progress:
        report = audit(load_dataset(options, progress))
    print_tables(*report.lines())
    if options.json_file:
        Path(options.json_file).write_text(report.to_json(indent=2))
    if options.sheets:
        for sheet in contact_sheets(report, Path(options.sheets)):
            print_tables(f"contact sheet: {sheet}")
    return 0
