"""The table of the cache's entries."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.filesize import decimal
from rich.table import Table

from data.cache.content_cache import CacheEntry, ContentCache


def cache_table(entries: Sequence[CacheEntry]) -> Table:
    """Return a row per entry: key, size, last use, and whether it is in use."""
    table = Table(box=None)
    for name, is_numeric in (("entry", False), ("size", True), ("last used", False), ("in use", False)):
        table.add_column(name, justify="right" if is_numeric else "left", no_wrap=True)
    for entry in entries:
        last_used = f"{datetime.fromtimestamp(entry.last_used):%Y-%m-%d %H:%M}"
        table.add_row(entry.key, decimal(entry.size_bytes), last_used, "yes" if entry.in_use else "")
    return table


def total_line(cache: ContentCache) -> str:
    """Return the cache's size, its limit and its folder."""
    size, limit = decimal(sum(entry.size_bytes for entry in cache.entries())), decimal(cache.limit_bytes)
    return f"{size} of at most {limit} (FREEZELINE_CACHE_GB) in {cache.root}"


def removed_line(keys: Sequence[str]) -> str:
    """Return the number of removed entries as a line."""
    return f"removed {len(keys)} cache {'entry' if len(keys) == 1 else 'entries'}"
