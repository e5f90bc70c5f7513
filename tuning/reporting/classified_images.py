"""Classified images of a report: the worst mistakes, correct images, and those won and lost against the champion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from data.dataset.value_range import stretched
from tuning.reporting.thumbnails import MAX_SIZE, decoded, example_rows, to_webp

if TYPE_CHECKING:
    from data.dataset.dataset import Dataset, Sample
    from models.evaluation.label_issues import LabelIssue
    from models.evaluation.metrics import Floats, Labels, Probabilities
    from models.packaging.explanation import PreparedImage
    from tuning.reporting.overlays import Overlays

MAX_MISTAKES = 12
MAX_CORRECT = 6
MAX_LABEL_ISSUES = 16
MAX_WON, MAX_LOST = 12, 12
SMALL_SIZE = 96  # px of the thumbnails beside the mistakes


@dataclass(frozen=True)
class ClassifiedImage:
    """A classified image, with the model's probabilities of the predicted and the true class.

    ``overlay`` shows the evidence for the predicted class in the image; None if it is unknown.
    """

    thumbnail: bytes
    path: str
    true_label: str
    predicted_label: str
    probability: float
    true_label_probability: float
    overlay: bytes | None = None


class ClassifiedSamples(NamedTuple):
    """Samples of a data set and their predictions: row i of each array belongs to ``samples[i]``.

    ``probabilities`` are [n, k], ``labels`` [n]. Images whose files cannot be read are left out of the results.
    ``overlays`` draws those of mistakes and correct images.
    """

    dataset: Dataset
    samples: Sequence[Sample]
    probabilities: Probabilities
    labels: Labels
    overlays: Overlays | None = None

    def mistakes(self) -> tuple[ClassifiedImage, ...]:
        """Return the misclassified images with the highest predicted probability."""
        wrong = np.flatnonzero(self.probabilities.argmax(axis=1) != self.labels)
        return self._images(self._most_confident(wrong)[:MAX_MISTAKES], MAX_SIZE, self.overlays)

    def correct(self) -> tuple[ClassifiedImage, ...]:
        """Return some correctly classified images, of as many classes as possible."""
        rows = np.flatnonzero(self.probabilities.argmax(axis=1) == self.labels).tolist()
        chosen = example_rows([self.samples[row] for row in rows], MAX_CORRECT)
        return self._images([rows[index] for index in chosen], MAX_SIZE, self.overlays)

    def most_confident(self, rows: Sequence[int], max_images: int) -> tuple[ClassifiedImage, ...]:
        """Return the images of these rows with the highest predicted probability."""
        return self._images(self._most_confident(np.array(rows, dtype=np.int64))[:max_images], SMALL_SIZE)

    def with_label_issues(self, issues: Sequence[LabelIssue]) -> tuple[ClassifiedImage, ...]:
        """Return the first images whose label is probably wrong."""
        return self._images([issue.row for issue in issues[:MAX_LABEL_ISSUES]], SMALL_SIZE)

    def _most_confident(self, rows: Labels) -> list[int]:
        confidence: Floats = self.probabilities.max(axis=1)
        order: list[int] = rows[np.argsort(-confidence[rows], kind="stable")].tolist()
        return order

    def _images(
        self, rows: Iterable[int], max_size: int, overlays: Overlays | None = None
    ) -> tuple[ClassifiedImage, ...]:
        thumbnails: dict[int, bytes] = {}
        prepared: list[PreparedImage | None] = []
        for row in rows:  # one at a time: an image of a camera has 100 MB
            if (image := decoded(self.dataset.root / self.samples[row].path)) is not None:
                thumbnails[row] = to_webp(stretched(image), max_size)
                prepared.append(overlays.prepare(image, max_size) if overlays else None)
        predicted = [int(self.probabilities[row].argmax()) for row in thumbnails]
        drawn = overlays.draw(prepared, predicted) if overlays else [None] * len(prepared)
        return tuple(
            self._image(row, thumbnail, overlay)
            for (row, thumbnail), overlay in zip(thumbnails.items(), drawn, strict=True)
        )

    def _image(self, row: int, thumbnail: bytes, overlay: bytes | None) -> ClassifiedImage:
        classes, probabilities = self.dataset.classes, self.probabilities[row]
        predicted, label = int(probabilities.argmax()), int(self.labels[row])
        return ClassifiedImage(
            thumbnail=thumbnail,
            path=self.samples[row].path,
            true_label=classes[label],
            predicted_label=classes[predicted],
            probability=float(probabilities[predicted]),
            true_label_probability=float(probabilities[label]),
            overlay=overlay,
        )
