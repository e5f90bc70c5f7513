"""What is kept on disk to be used again: decoded pictures, and what frozen blocks gave for them; shown and cleared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from data.frozen_model import FrozenModel
from tuning.cli.parser import parse

EXAMPLE = "python -m tuning cache --clear pixels"


class CacheOptions(FrozenModel):
    """The options of ``store``."""

    clear: Literal["", "all", "pixels", "features"] = Field(
        "", description="throw out what no process uses now: all, or one kind"
    )


OPTIONS = CacheOptions


def run(arguments: Sequence[str]) -> int:
    """Print the store's entries, least recently used first, or throw them out."""
    options = parse(CacheOptions, arguments)
    from data.cache.content_cache import ContentCache
    from tuning.common.event_bus import print_table
    from tuning.ui.tables.cache import cache_table, removed_line, total_line

    store = ContentCache()
    if options.clear:
        print_table(removed_line(store.clear("" if options.clear == "all" else options.clear)))
    print_table(cache_table(store.entries()), total_line(store))
    return 0
