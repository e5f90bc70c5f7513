"""Compare searches by score, network and time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from data.errors import SettingError
from data.frozen_model import FrozenModel
from tuning.cli.parser import OutputPath, Several

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from tuning.common.promotion_types import Candidate
    from tuning.tracking.search_summary import SearchSummary

EXAMPLE = "freezeline compare photos PARENT_RUN_ID --chart compared.png"
POSITIONALS = ("runs",)


class Options(FrozenModel):
    """The options of ``compare``."""

    runs: Several = Field(
        min_length=1,
        description="two or more different searches: parent run IDs, or experiment names (the latest search of each)",
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
    from tuning.ui.tables.searches import ComparedSearch, common_line, searches_table

    client = connect_to_existing()
    searches = _different([load_search_summary(client, name) for name in names], names)
    compared = [ComparedSearch(search, _packaged_candidate(client, search.run_id)) for search in searches]
    print_tables(searches_table(compared), *filter(None, [common_line(compared)]))
    if len({search.data_fingerprint for search in searches}) > 1:
        print_tables("these searches use different images or splits: their scores are not comparable")
    if options.chart:
        from tuning.reporting.comparison import comparison_chart

        write_atomically(Path(options.chart), comparison_chart(searches))
        print_tables(f"chart of score over time: {options.chart}")
    return 0


def _different(searches: list[SearchSummary], names: list[str]) -> list[SearchSummary]:
    """Return each search once: the name of an experiment and a run ID may be the same search."""
    different = list({search.run_id: search for search in searches}.values())
    if len(different) < 2:
        raise SettingError(
            f"runs must be two or more different searches, got {' and '.join(map(repr, names))}, which are the same "
            f"search {different[0].short_id}; replace one by the parent run ID of another search (mlflow ui lists them)"
        )
    return different


def _packaged_candidate(client: MlflowClient, run_id: str) -> Candidate | None:
    """Return the candidate of a search, with the intervals of its test scores; None if it packaged no model."""
    from mlflow.exceptions import MlflowException

    from data.errors import TrackingError
    from tuning.registry.candidate_store import load_candidate

    try:
        return load_candidate(client, run_id)
    except (TrackingError, MlflowException, OSError):  # also if it is of an earlier version, or its artifacts are gone
        return None
