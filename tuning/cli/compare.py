"""Compare searches: what each reached, with which network, in which time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from data.errors import SettingError
from data.frozen_model import FrozenModel
from tuning.cli.parser import parse

EXAMPLE = "python -m tuning compare --runs digits,PARENT_RUN_ID --picture compared.png"


class CompareOptions(FrozenModel):
    """The options of ``compare``."""

    runs: str = Field(
        min_length=1,
        description="two or more, with commas between: parent runs, or experiments' names for the latest in each",
    )
    picture: str = Field("", description="a .png file that the chart of scores by time is written to")


OPTIONS = CompareOptions


def run(arguments: Sequence[str]) -> int:
    """Print a table of the searches; write the chart if a file is given."""
    options = parse(CompareOptions, arguments)
    wanted = list(dict.fromkeys(part.strip() for part in options.runs.split(",") if part.strip()))
    if len(wanted) < 2:
        raise SettingError(f"runs must be two or more searches with a comma between, got {options.runs!r}; add another")
    if options.picture and Path(options.picture).suffix != ".png":
        raise SettingError(f"picture must be a .png file, got {options.picture!r}; call it compared.png, say")
    from data.atomic_write import write_atomically
    from tuning.common.event_bus import print_table
    from tuning.reporting.comparison_chart import comparison_chart
    from tuning.tracking.connection import connect, pop_run_id_from_env
    from tuning.tracking.search_summary import load_search_summary
    from tuning.ui.tables.comparison import table, warnings

    pop_run_id_from_env()
    client = connect()
    searches = [load_search_summary(client, given) for given in wanted]
    print_table(table(searches), *warnings(searches))
    if options.picture:
        write_atomically(Path(options.picture), comparison_chart(searches))
        print_table(f"the scores by time are in {options.picture}")
    return 0
