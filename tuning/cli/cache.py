"""What is kept on disk to be used again: decoded pictures, and what frozen blocks gave for them; shown and cleared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from data.frozen_model import Value
from tuning.cli.parser import parse

EXAMPLE = "python -m tuning cache --clear pixels"


class StoreOptions(Value):
    """The options of ``store``."""

    clear: Literal["", "all", "pixels", "features"] = Field(
        "", description="throw out what no process uses now: all, or one kind"
    )


OPTIONS = StoreOptions


def run(arguments: Sequence[str]) -> int:
    """Print the store's entries, least recently used first, or throw them out."""
    options = parse(StoreOptions, arguments)
    from data.cache.content_cache import Store
    from tuning.common.event_bus import show
    from tuning.ui.tables.cache import gone_line, store_table, total_line

    store = Store()
    if options.clear:
        show(gone_line(store.clear("" if options.clear == "all" else options.clear)))
    show(store_table(store.entries()), total_line(store))
    return 0
