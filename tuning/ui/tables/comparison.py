"""The table that compares searches."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from tuning.tracking.search_summary import SearchSummary

MISSING = "-"
COLUMNS = ("search", "name", "trials", "minutes", "val", "test", "winner", "status")
TEXT_COLUMNS = ("search", "name", "winner", "status")


def table(searches: Sequence[SearchSummary]) -> Table:
    """Return a row per search, in the given order."""
    rows = Table(
        title="Searches, balanced accuracy", title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0)
    )
    for name in COLUMNS:
        rows.add_column(name, justify="left" if name in TEXT_COLUMNS else "right", overflow="fold")
    for search in searches:
        rows.add_row(
            search.short_id,
            search.name,
            str(search.num_trials),
            f"{search.minutes:.1f}",
            _score(search.score),
            _score(search.test_score),
            search.winner or MISSING,
            search.promotion or search.status.lower(),
        )
    return rows


def warnings(searches: Sequence[SearchSummary]) -> list[str]:
    """Return warnings about searches whose scores are not comparable."""
    if len({search.data_fingerprint for search in searches}) > 1:
        return ["these searches use different images or splits: their scores are not comparable"]
    return []


def _score(score: float | None) -> str:
    return MISSING if score is None else f"{score:.4f}"
