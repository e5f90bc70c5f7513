"""Where pictures come from: what ``data=...`` names, opened as a list of labelled files."""

from __future__ import annotations

from data.sources.base import LeftOut, Picture, Source, SplitName
from data.sources.opening import open_source

__all__ = ["LeftOut", "Picture", "Source", "SplitName", "open_source"]
