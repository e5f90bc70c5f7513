"""What is wrong with a data set, file by file, before any training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from data.frozen_model import FrozenModel
from tuning.cli.parser import parse

EXAMPLE = "python -m tuning audit --data photos/ --json audit.json --sheets sheets/"


class AuditOptions(FrozenModel):
    """The options of ``audit``."""

    data: str = Field("demo", min_length=1, description="what to look at; see tune")
    json_file: str = Field("", alias="json", description="a file that everything is written to, all names included")
    sheets: str = Field("", description="a folder for contact sheets: pictures that belong together, side by side")


OPTIONS = AuditOptions


def run(arguments: Sequence[str]) -> int:
    """Print the audit; findings alone are no error."""
    options = parse(AuditOptions, arguments)
    from data.audit.contact_sheets import contact_sheets
    from data.audit.report import audit
    from data.load_dataset import load_dataset
    from tuning.common.event_bus import print_table
    from tuning.tracking.connection import pop_run_id_from_env
    from tuning.ui.progress_bar import ProgressBar

    pop_run_id_from_env()
    with ProgressBar() as progress:
        found = audit(load_dataset(options.data, progress))
    print_table(*found.lines())
    if options.json_file:
        Path(options.json_file).expanduser().write_text(found.to_json(indent=2))
    if options.sheets:
        for sheet in contact_sheets(found, Path(options.sheets).expanduser()):
            print_table(f"contact sheet: {sheet}")
    return 0
