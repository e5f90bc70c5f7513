"""Compare searches by score, network and time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from data.errors import SettingError
from data.frozen_model import FrozenModel
from tuning.cli.parser import OutputPath, Several

if TYPE_CHECKING:
    from tuning.tracking.search_summary import SearchSummary
    from tuning.ui.tables.text_table import TextTable

EXAMPLE = "freezeline compare photos PARENT_RUN_ID --chart compared.png"
POSITIONALS = ("runs",)


class Options(FrozenModel):
    """The options of ``compare``."""

    runs: Several = Field(
        min_length=1, description="two or more parent run IDs, or experiment names (the latest search of each)"
    )
    chart: OutputPath = Field("", description=".png file to write a chart of score over time to")


def run(options: Options, _mlflow_run_id: str | None) -> int:
    """Print a table of the searches; write the chart if requested."""
    # mlflow run passes them as one value, separated by commas.
    names = list(dict.fromkeys(part.strip() for text in options.runs for part in text.split(",") if part.strip()))
    if len(names) < 2:
        raise SettingError(f"runs must be two or more searches, got {', '.join(names)!r}; add another")
    if options.chart and Path(options.chart).suffix != ".png":
        raise SettingError(f"chart must be a .png file, got {options.chart!r}; use for example compared.png")
    from data.atomic_write import write_atomically
    from tuning.tracking.connection import connect_to_existing
    from tuning.tracking.search_summary import load_search_summary
    from tuning.ui.console import print_tables

    client = connect_to_existing()
    searches = [load_search_summary(client, name) for name in names]
    print_tables(_table(searches))
    if len({search.data_fingerprint for search in searches}) > 1:
        print_tables("these searches use different images or splits: their scores are not comparable")
    if options.chart:
        from tuning.reporting.charts import comparison_chart

        write_atomically(Path(options.chart), comparison_chart(searches))
        print_tables(f"chart of score over time: {options.chart}")
    return 0


def _table(searches: Sequence[SearchSummary]) -> TextTable:
    """Return a row per search, in the given order."""
    from tuning.ui.tables.text_table import TextTable

    columns = ("search", "name", "trials", "minutes", "val", "test", "winner", "status")
    rows = [
        [
            search.short_id,
            search.name,
            str(search.num_trials),
            f"{search.minutes:.1f}",
            _score(search.score),
            _score(search.test_score),
            search.winner or "-",
            search.promotion or search.status.lower(),
        ]
        for search in searches
    ]
    text_columns = {"search", "name", "winner", "status"}
    return TextTable("Searches, balanced accuracy", columns, rows, text_columns=text_columns, wrapped=columns)


def _score(score: float | None) -> str:
    return "-" if score is None else f"{score:.4f}"
