"""Accuracy in use, from labels that arrive later."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.errors import DataError
from data.sources.options import LabeledImagesOptions
from data.sources.resolve import open_source
from models.evaluation.intervals import wilson_interval
from models.packaging.recording import ID_LENGTH, image_id
from tuning.monitoring.records import Records

IMAGE_ID = re.compile(rf"[0-9a-f]{{{ID_LENGTH}}}")


class LiveAccuracy(NamedTuple):
    """The share of labeled answers that are right, its 95 % interval, and the lower bound proven on test images."""

    num_images: int
    accuracy: float
    low: float
    high: float
    proven: float

    @property
    def is_below(self) -> bool:
        """Whether the accuracy in use is below what was proven on the test images, by more than chance explains."""
        return self.high < self.proven


def live_accuracy(records: Records, labels: Mapping[str, str], classes: Sequence[str], proven: float) -> LiveAccuracy:
    """Return the accuracy of the answers for labeled images; of several answers for an image the last one counts.

    Raises:
        DataError: no labeled image was answered.
    """
    answers = {image: classes[index] for image, index in zip(records.images.tolist(), records.classes, strict=True)}
    is_right = [answers[image] == label for image, label in labels.items() if image in answers]
    if not is_right:
        raise DataError(
            f"labels must name images that were answered in the time to be checked, got {len(labels):,} others; "
            "choose more days, or check that the files are those that were sent"
        )
    low, high = wilson_interval(sum(is_right), len(is_right))
    return LiveAccuracy(len(is_right), float(np.mean(is_right)), low, high, proven)


def read_labels(file: Path) -> dict[str, str]:
    """Return the label of each image by the image's id in the records.

    The file is a table of image files and labels as ``data`` accepts it, or one with the columns ``image`` and
    ``label``, where ``image`` is the id in the records.

    Raises:
        DataError: it is neither.
    """
    if not file.is_file():
        raise DataError(f"labels must be a table of images and labels, got {file}, which is no file; check the path")
    with file.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.DictReader(lines)
        if set(rows.fieldnames or ()) >= {"image", "label"}:
            labels = {row["image"]: row["label"] for row in rows}
            if all(IMAGE_ID.fullmatch(image) for image in labels):
                return labels
    source = open_source(LabeledImagesOptions(data=str(file)))
    return {image_id(source.root / image.path): image.label for image in source.images}
