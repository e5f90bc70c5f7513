"""Overlays of a report: the evidence that the winner's networks find for the predicted class."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from PIL import Image

from data.errors import one_line
from tuning.reporting.thumbnails import to_webp

if TYPE_CHECKING:
    from models.packaging.explanation import Explainer, PreparedImage

logger = logging.getLogger(__name__)

# For all overlays of a report, loading the networks included, because the user waits for it. One EfficientNet-Lite0 at
# 128 px takes 0.5 s for 18 images on one core.
TIME_LIMIT_S = 4.0
CHUNK_SIZE = 6  # images per pass, so that the limit is kept by slow networks, too


class Overlays:
    """Draws overlays until a time limit; a network that cannot be explained costs the report nothing else."""

    def __init__(self, load: Callable[[], Explainer]) -> None:
        """Take a function that loads the networks, which is called for the first images."""
        self._load = load
        self._explainer: Explainer | None = None
        self._end_s: float | None = None

    def prepare(self, image: Image.Image, max_size: int) -> PreparedImage | None:
        """Return an image of ``decode_image`` for ``draw``, at most ``max_size`` px wide and high.

        It is None after the time limit, and after an error, which is logged.
        """
        if self._end_s is None:
            self._end_s = time.monotonic() + TIME_LIMIT_S
        with self._no_failure():
            if time.monotonic() < self._end_s:
                self._explainer = self._explainer or self._load()
                return self._explainer.prepare(image, max_size)
        return None

    def draw(self, images: Sequence[PreparedImage | None], classes: Sequence[int]) -> list[bytes | None]:
        """Return the overlays of images for classes as WebP; those that ``prepare`` could not return are None."""
        drawn: list[bytes | None] = [None] * len(images)
        rows = [row for row, image in enumerate(images) if image]
        for first in range(0, len(rows), CHUNK_SIZE):
            chunk = {row: image for row in rows[first : first + CHUNK_SIZE] if (image := images[row])}
            with self._no_failure():
                if self._explainer and self._end_s and time.monotonic() < self._end_s:
                    overlays = self._explainer.overlays(list(chunk.values()), [classes[row] for row in chunk])
                    for row, overlay in zip(chunk, overlays, strict=True):
                        drawn[row] = to_webp(overlay)
        return drawn

    @contextmanager
    def _no_failure(self) -> Iterator[None]:
        """Context manager that logs an error, after which no other overlay is drawn."""
        try:
            yield
        except Exception as error:  # networks of any library: the report is more important than its overlays
            self._end_s = 0.0
            logger.info("the report has no class activation maps: %s", one_line(error))
