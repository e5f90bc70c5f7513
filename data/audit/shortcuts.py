"""Shortcuts: properties of files that tell the class without looking at what the images show.

If all photos of one class are PNG files and all of another JPEG, a model may learn the compression, and its test score
shows nothing of what it does on other photos. Each kind of property predicts the class of each image from the other
images (five folds); what is far better than guessing is reported.

Shapes: n images, c cells of equal properties, k classes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data.dataset.image_index import ImageInfo
from data.sources.base import ImageFile

MIN_IMAGES = 60  # with fewer, a property that fits by chance looks like a shortcut
NUM_FOLDS = 5
# Between guessing (0) and always right (1). What images show has some relation to their colors and proportions: on four
# photo sets the highest values were 0.27 (mean color, TrashNet) and 0.15 (image size, photos of athletes).
MIN_SKILL = 0.6
SIZE_BINS, RATIO_BINS, COLOR_BINS = 8, 4, 4
Cells = npt.NDArray[np.int64]


class Shortcut(NamedTuple):
    """A kind of property, and the mean recall of the classes that it reaches alone."""

    name: str
    balanced_accuracy: float


def find_shortcuts(images: Sequence[ImageFile], image_index: Mapping[str, ImageInfo]) -> list[Shortcut]:
    """Return the kinds of properties that tell the class far better than guessing."""
    infos = [image_index[image.path] for image in images]
    classes, labels = np.unique([image.label for image in images], return_inverse=True)
    if len(images) < MIN_IMAGES or len(classes) < 2:
        return []
    # Copies of an image are in the same fold.
    folds = np.array([int(str(info.content_hash)[:8], 16) % NUM_FOLDS for info in infos])
    found = []
    for name, cells in _properties(infos):
        accuracy = _cross_validated(cells, labels, folds)
        if (accuracy - 1 / len(classes)) / (1 - 1 / len(classes)) >= MIN_SKILL:
            found.append(Shortcut(name, accuracy))
    return found


def _properties(infos: Sequence[ImageInfo]) -> Iterator[tuple[str, Cells]]:
    """Yield each kind of property with the cell of each image [n]."""
    yield "file type", _cells([info.format for info in infos])
    yield "color mode", _cells([(info.is_gray, info.has_alpha, info.value_range is None) for info in infos])
    yield "border color", _cells([info.border for info in infos])
    sides = np.array([(info.short_side, info.width / info.height) for info in infos])
    yield "image size", _cells(zip(_binned(sides[:, 0], SIZE_BINS), _binned(sides[:, 1], RATIO_BINS), strict=True))
    colors = np.array([info.mean_color for info in infos])
    yield "mean color", _cells(zip(*(_binned(channel, COLOR_BINS) for channel in colors.T), strict=True))


def _cells(values: Iterable[Hashable]) -> Cells:
    """Return the number of each distinct value."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)


def _binned(values: npt.NDArray[np.float64], count: int) -> Cells:
    """Return the bin of each value; the bins have about equal numbers of values."""
    edges = np.unique(np.quantile(values, np.arange(1, count) / count))
    return np.searchsorted(edges, values, side="right").astype(np.int64)


def _cross_validated(cells: Cells, labels: npt.NDArray[np.int64], folds: Cells) -> float:
    """Return the balanced accuracy of predicting, for each image, the class that is most typical of its cell.

    An image in a cell without others, and one in a tie, counts as wrong unless its class is the first.
    """
    num_cells, num_classes = int(cells.max()) + 1, int(labels.max()) + 1
    counts = np.zeros((num_cells, num_classes))
    np.add.at(counts, (cells, labels), 1.0)
    is_correct = np.zeros(len(labels), dtype=bool)
    for fold in range(NUM_FOLDS):
        held_out = folds == fold
        others = counts.copy()
        np.subtract.at(others, (cells[held_out], labels[held_out]), 1.0)
        predicted = (others / np.maximum(others.sum(axis=0), 1)).argmax(axis=1)
        is_correct[held_out] = predicted[cells[held_out]] == labels[held_out]
    recalls = [is_correct[labels == label].mean() for label in range(num_classes)]
    return float(np.mean(recalls))
