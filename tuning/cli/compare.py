"""Compare searches by score, network and time."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from data.errors import SettingError
from data.frozen_model import FrozenModel
from tuning.cli.parser import OutputPath

EXAMPLE = "python -m tuning compare --runs digits,PARENT_RUN_ID --chart compared.png"


class Options(FrozenModel):
    """The options of ``compare``."""

    runs: str = Field(
        min_length=1,
        description="two or more, separated by commas: parent run IDs, or experiment names (latest search of each)",
    )
    chart: OutputPath = Field("", description=".png file to write a chart of score over time to")


def run(options: Options, _mlflow_run_id: str | None) -> int:
    """Print a table of the searches; write the chart if requested."""
    names = list(dict.fromkeys(part.strip() for part in options.runs.split(",") if part.strip()))
    if len(names) < 2:
        raise SettingError(f"runs must be two or more searches separated by commas, got {options.runs!r}; add another")
    if options.chart and Path(options.chart).suffix != ".png":
        raise SettingError(f"chart must be a .png file, got {options.chart!r}; use for example compared.png")
    from data.atomic_write import write_atomically
    from tuning.reporting.charts import comparison_chart
    from tuning.tracking.connection import connect
    from tuning.tracking.search_summary import load_search_summary
    from tuning.ui.console import print_tables
    from tuning.ui.tables.comparison import table, warnings

    client = connect()
    searches = [load_search_summary(client, name) for name in names]
    print_tables(table(searches), *warnings(searches))
    if options.chart:
        write_atomically(Path(options.chart), comparison_chart(searches))
        print_tables(f"chart of score over time: {options.chart}")
    return 0
