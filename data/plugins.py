"""Networks and augmentations of other packages, which offer them as entry points."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Literal

Group = Literal["backbones", "augmentations"]


@lru_cache
def plugins(group: Group) -> dict[str, EntryPoint]:
    """Return the entry points of installed packages in the group ``freezeline.GROUP``, by name."""
    return {entry.name: entry for entry in entry_points(group=f"freezeline.{group}")}


def plugin_version(entry: EntryPoint) -> str:
    """Return the name and version of the package that offers an entry point, for cache keys."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
