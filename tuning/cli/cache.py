"""Show or clear the cache on disk: decoded images, and features of frozen blocks."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from data.frozen_model import FrozenModel

EXAMPLE = "freezeline cache --clear pixels"
POSITIONALS: tuple[str, ...] = ()


class Options(FrozenModel):
    """The options of ``cache``."""

    clear: Literal["", "all", "pixels", "features"] = Field(
        "", description="remove entries that no process is using: all, or one kind"
    )


def run(options: Options, _mlflow_run_id: str | None) -> int:
    """Print the cache entries, least recently used first; with ``clear``, remove entries before."""
    from rich.filesize import decimal

    from data.cache.content_cache import ContentCache
    from tuning.ui.console import print_tables
    from tuning.ui.tables.text_table import TextTable

    cache = ContentCache()
    if options.clear:
        num_removed = len(cache.clear("" if options.clear == "all" else options.clear))
        print_tables(f"removed {num_removed} cache {'entry' if num_removed == 1 else 'entries'}")
    rows = [
        [
            entry.key,
            decimal(entry.size_bytes),
            f"{datetime.fromtimestamp(entry.last_used):%Y-%m-%d %H:%M}",
            "yes" if entry.in_use else "",
        ]
        for entry in cache.entries()
    ]
    columns = ("entry", "size", "last used", "in use")
    size, limit = decimal(sum(entry.size_bytes for entry in cache.entries())), decimal(cache.limit_bytes)
    print_tables(
        TextTable("", columns, rows, text_columns={"entry", "last used", "in use"}),
        f"{size} of at most {limit} (FREEZELINE_CACHE_GB) in {cache.root}",
    )
    return 0
