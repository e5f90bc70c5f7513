"""Classified images of a report: the worst mistakes, correct images, and those won and lost against the champion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tuning.reporting.thumbnails import MAX_SIZE, example_rows, thumbnail_of_file

if TYPE_CHECKING:
    from data.dataset.dataset import Dataset, Sample
    from models.evaluation.label_issues import LabelIssue
    from models.evaluation.metrics import Floats, Labels, Probabilities

MAX_MISTAKES = 16
MAX_CORRECT = 8
MAX_LABEL_ISSUES = 16
MAX_WON, MAX_LOST = 12, 12
SMALL_SIZE = 96  # px of the thumbnails beside the mistakes


@dataclass(frozen=True)
class ClassifiedImage:
    """A classified image, with the model's probabilities of the predicted and the true class."""

    thumbnail: bytes
    path: str
    true_label: str
    predicted_label: str
    probability: float
    true_label_probability: float


class ClassifiedSamples(NamedTuple):
    """Samples of a data set and their predictions: row i of each array belongs to ``samples[i]``.

    ``probabilities`` are [n, k], ``labels`` [n]. Images whose files cannot be read are left out of the results.
    """

    dataset: Dataset
    samples: Sequence[Sample]
    probabilities: Probabilities
    labels: Labels

    def mistakes(self) -> tuple[ClassifiedImage, ...]:
        """Return the misclassified images with the highest predicted probability."""
        wrong = np.flatnonzero(self.probabilities.argmax(axis=1) != self.labels)
        return self._images(self._most_confident(wrong)[:MAX_MISTAKES], MAX_SIZE)

    def correct(self) -> tuple[ClassifiedImage, ...]:
        """Return some correctly classified images, of as many classes as possible."""
        rows = np.flatnonzero(self.probabilities.argmax(axis=1) == self.labels).tolist()
        chosen = example_rows([self.samples[row] for row in rows], MAX_CORRECT)
        return self._images([rows[index] for index in chosen], SMALL_SIZE)

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

    def _images(self, rows: Iterable[int], max_size: int) -> tuple[ClassifiedImage, ...]:
        images = (self._image(row, max_size) for row in rows)
        return tuple(image for image in images if image is not None)

    def _image(self, row: int, max_size: int) -> ClassifiedImage | None:
        sample, classes, probabilities = self.samples[row], self.dataset.classes, self.probabilities[row]
        thumbnail = thumbnail_of_file(self.dataset.root / sample.path, max_size)
        if thumbnail is None:
            return None
        predicted, label = int(probabilities.argmax()), int(self.labels[row])
        return ClassifiedImage(
            thumbnail=thumbnail,
            path=sample.path,
            true_label=classes[label],
            predicted_label=classes[predicted],
            probability=float(probabilities[predicted]),
            true_label_probability=float(probabilities[label]),
        )
