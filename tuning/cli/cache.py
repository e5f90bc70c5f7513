"""Show or clear the cache on disk: decoded images, and features of frozen blocks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from data.frozen_model import FrozenModel

EXAMPLE = "python -m tuning cache --clear pixels"


class Options(FrozenModel):
    """The options of ``cache``."""

    clear: Literal["", "all", "pixels", "features"] = Field(
        "", description="remove entries that no process is using: all, or one kind"
    )


def run(options: Options, _mlflow_run_id: str | None) -> int:
    """Print the cache entries, least recently used first; with ``clear``, remove entries before."""
    from data.cache.content_cache import ContentCache
    from tuning.ui.console import print_tables
    from tuning.ui.tables.cache import cache_table, removed_line, total_line

    cache = ContentCache()
    if options.clear:
        print_tables(removed_line(cache.clear("" if options.clear == "all" else options.clear)))
    print_tables(cache_table(cache.entries()), total_line(cache))
    return 0
