"""Searches side by side: a table for the terminal, and how each got better with time."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from tuning.tracking.search_summary import SearchSummary

NOTHING = "-"
COLUMNS = ("search", "name", "trials", "minutes", "validation", "test", "best network", "became")
LEFT = ("search", "name", "best network", "became")


def table(searches: Sequence[SearchSummary]) -> Table:
    """Return a row for each search, in the order in which they were given."""
    shown = Table(title="Searches, balanced accuracy", title_justify="left", title_style="bold", box=None)
    for name in COLUMNS:
        shown.add_column(name, justify="left" if name in LEFT else "right", overflow="fold")
    for search in searches:
        shown.add_row(
            search.short_id,
            search.name,
            str(search.num_trials),
            f"{search.seconds / 60:.1f}",
            _score(search.score),
            _score(search.test_score),
            search.network or NOTHING,
            search.promotion or search.status.lower(),
        )
    return shown


def warnings(searches: Sequence[SearchSummary]) -> list[str]:
    """Return what has to be known before the numbers are compared."""
    if len({search.data_fingerprint for search in searches}) > 1:
        return ["these searches are of different pictures, or split differently: their scores can't be compared"]
    return []


def _score(score: float | None) -> str:
    return NOTHING if score is None else f"{score:.4f}"
