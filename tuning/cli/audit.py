"""Report the problems of a data set file by file, before training."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from data.sources.options import DataOptions
from tuning.cli.parser import OutputPath

if TYPE_CHECKING:
    from data.dataset.dataset import Dataset

EXAMPLE = "freezeline audit photos/ --json audit.json --sheets sheets/"
POSITIONALS = ("data",)


class Options(DataOptions):
    """The options of ``audit``."""

    json_file: OutputPath = Field("", alias="json", description="file to write the full audit to, with all file names")
    sheets: OutputPath = Field("", description="folder to write contact sheets to: related images side by side")
    labels: bool = Field(False, description="also find labels that are probably wrong; takes a few ms per image")
    labels_file: OutputPath = Field(
        "", alias="labels_csv", description="file to write all images to as a manifest to edit, wrong labels first"
    )


def run(options: Options, _mlflow_run_id: str | None) -> int:
    """Print the audit; findings do not change the exit status."""
    from data.audit.contact_sheets import contact_sheets
    from data.audit.report import audit
    from data.load_dataset import load_dataset
    from tuning.ui.console import print_tables, progress_bar

    with progress_bar() as progress:
        dataset = load_dataset(options, progress)
    report = audit(dataset)
    print_tables(*report.lines())
    if options.json_file:
        Path(options.json_file).write_text(report.to_json(indent=2))
    if options.sheets:
        for sheet in contact_sheets(report, Path(options.sheets)):
            print_tables(f"contact sheet: {sheet}")
    if options.labels or options.labels_file:
        _audit_labels(options, dataset)
    return 0


def _audit_labels(options: Options, dataset: Dataset) -> None:
    from tuning.ui.console import print_tables, progress_bar
    from tuning.workflows.label_audit import audit_labels

    with progress_bar() as progress:
        labels = audit_labels(dataset, progress)
    print_tables(labels.table())
    if options.labels_file:
        labels.write_manifest(Path(options.labels_file))
        print_tables(
            f"all images as a manifest: {options.labels_file}; correct its column label, "
            f"then freezeline tune {shlex.quote(options.labels_file)}"
        )
    if options.sheets and labels.issues:
        sheet = Path(options.sheets) / "label_issues.png"
        labels.write_sheet(sheet)
        print_tables(f"contact sheet: {sheet}")
