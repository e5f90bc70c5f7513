"""Overlays of a report: where the winner's networks see the class that they predict."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from PIL import Image

from data.dataset.value_range import stretched
from data.errors import one_line
from tuning.reporting.thumbnails import to_webp

if TYPE_CHECKING:
    from models.packaging.explanation import Explainer

logger = logging.getLogger(__name__)

# For all overlays of a report, loading the networks included: a search's user waits for it. A network as small as
# EfficientNet-Lite0 takes half a second for 18 images.
TIME_LIMIT_S = 4.0


class Overlays:
    """Draws overlays until a time limit; a network that cannot be explained costs the report nothing else."""

    def __init__(self, load: Callable[[], Explainer]) -> None:
        """Take a function that loads the networks, which is called for the first overlay."""
        self._load = load
        self._explainer: Explainer | None = None
        self._end_s: float | None = None

    def draw(self, image: Image.Image, class_index: int, max_size: int) -> bytes | None:
        """Return the overlay of an image of ``decode_image`` as WebP, at most ``max_size`` px wide and high.

        It is None after the time limit, and after an error, which is logged.
        """
        self._end_s = time.monotonic() + TIME_LIMIT_S if self._end_s is None else self._end_s
        if time.monotonic() > self._end_s:
            return None
        try:
            self._explainer = self._explainer or self._load()
            shown = stretched(image)
            shown.thumbnail((max_size, max_size))
            return to_webp(self._explainer.overlay(image, shown, class_index), max_size)
        except Exception as error:  # networks of any library: the report is more important than its overlays
            self._end_s = 0.0
            logger.info("the report has no class activation maps: %s", one_line(error))
            return None
