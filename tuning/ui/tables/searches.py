"""The comparison of searches, for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from data.text import pluralize
from tuning.common.names import TEST_METRIC
from tuning.common.promotion_types import Candidate
from tuning.tracking.search_summary import SearchSummary
from tuning.ui.tables.text_table import TextTable

MISSING = "-"
TEXT_COLUMNS = {"search", "name", "winner", "status"}


class ComparedSearch(NamedTuple):
    """A search and the model that it packaged; None if there is none."""

    summary: SearchSummary
    candidate: Candidate | None


def _num_test_images(search: ComparedSearch) -> str:
    return str(search.candidate.num_test_images) if search.candidate else MISSING


# Columns that are left out if all searches have the same value.
VARYING: Mapping[str, Callable[[ComparedSearch], str]] = {
    "images": _num_test_images,
    "budget": lambda search: search.summary.budget or MISSING,
    "seed": lambda search: MISSING if search.summary.seed is None else str(search.summary.seed),
}


def searches_table(searches: Sequence[ComparedSearch]) -> TextTable:
    """Return a row per search, in the given order; with names that are not long it fits into 100 columns."""
    varying = [name for name, cell in VARYING.items() if len(set(map(cell, searches))) > 1]
    columns = ("search", "name", "trials", "min", "val", "test [95% CI]", *varying, "winner", "status")
    rows = [_cells(search, varying) for search in searches]
    return TextTable("Searches, balanced accuracy", columns, rows, text_columns=TEXT_COLUMNS, wrapped=columns)


def common_line(searches: Sequence[ComparedSearch]) -> str:
    """Return the values of ``VARYING`` that are the same in all searches; empty if there are none."""
    common = {name: cell(searches[0]) for name, cell in VARYING.items() if len(set(map(cell, searches))) == 1}
    texts = {"budget": "budget {}", "seed": "seed {}"}
    if (images := common.pop("images", MISSING)) != MISSING:
        texts["images"] = pluralize(int(images), "test image")
        common = {"images": images, **common}
    listed = ", ".join(texts[name].format(value) for name, value in common.items() if value != MISSING)
    return f"the same in all: {listed}" if listed else ""


def _cells(search: ComparedSearch, varying: Sequence[str]) -> list[str]:
    summary = search.summary
    return [
        summary.short_id,
        summary.name,
        str(summary.num_trials),
        f"{summary.minutes:.1f}",
        MISSING if summary.score is None else f"{summary.score:.4f}",
        _test_score(search),
        *(VARYING[name](search) for name in varying),
        summary.winner or MISSING,
        summary.promotion or summary.status.lower(),
    ]


def _test_score(search: ComparedSearch) -> str:
    score = search.summary.test_score
    if score is None:
        return MISSING
    interval = search.candidate.intervals.get(TEST_METRIC) if search.candidate else None
    return f"{score:.4f} [{interval[0]:.3f}-{interval[1]:.3f}]" if interval else f"{score:.4f}"
