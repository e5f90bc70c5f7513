"""The store, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.filesize import decimal
from rich.table import Table

from data.cache.content_cache import CacheEntry, ContentCache


def cache_table(entries: Sequence[CacheEntry]) -> Table:
    """Return a row for each entry: key, size, when it was used last, and whether it is in use."""
    table = Table(box=None)
    for name, right in (("entry", False), ("size", True), ("last used", False), ("in use", False)):
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for entry in entries:
        used = f"{datetime.fromtimestamp(entry.last_used):%Y-%m-%d %H:%M}"
        table.add_row(entry.key, decimal(entry.size_bytes), used, "yes" if entry.in_use else "")
    return table


def total_line(store: ContentCache) -> str:
    """Return how full the store is, where it is, and what sets its limit."""
    size, limit = decimal(store.size_bytes()), decimal(store.limit_bytes)
    return f"{size} of at most {limit} (FREEZELINE_CACHE_GB) in {store.root}"


def removed_line(keys: Sequence[str]) -> str:
    """Return a line with the number of removed entries."""
    return f"removed {len(keys)} cache entries"
