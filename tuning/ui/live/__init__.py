"""The live view of a terminal: a small block at its bottom that says how a search is doing, lines that stay above it.

``state`` is what the block shows, ``drawing`` makes a picture of it, ``view`` keeps the picture in the terminal.
"""

from __future__ import annotations

from tuning.views.live.view import LiveView

__all__ = ["LiveView"]
