"""Stratified parts of images: with many images, an epoch uses one part of them, and each epoch another one.

Shapes: n = number of images.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.intp]

PART_SEED = 0  # fixed, so that all trials of a data set have the same parts and share what is computed for them
MIN_PER_CLASS = 8  # images of a part; a smaller class is used completely in each
FIRST_SEGMENT = 2_000  # images


class StratifiedParts:
    """Parts of n images, all with the same number of images of each class.

    The first part of a smaller size is contained in the first part of a larger one.

    Attributes:
        count: the number of parts after which all images have been used.
    """

    def __init__(self, labels: npt.NDArray[np.int64], size: int, min_per_class: int = MIN_PER_CLASS) -> None:
        """Take the labels [n] and the approximate size of a part, which is below n."""
        self._min_per_class = min_per_class
        self.count = -(-len(labels) // size)
        self._share = size / len(labels)
        rng = np.random.default_rng(PART_SEED)
        self._by_class = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]

    def rows(self, part: int) -> Indices:
        """Return the sorted indices of the images of a part; numbers from ``count`` on repeat the parts."""
        return self._rows(part % self.count, self._share)

    def segments(self) -> list[Indices]:
        """Return the indices of the images of the first part in segments, each sorted (see ``segment_ranges``)."""
        count = sum(len(rows) for rows in self._by_class)
        firsts = [self._rows(0, each.stop / count) for each in segment_ranges(round(self._share * count))]
        others = (np.setdiff1d(larger, smaller) for smaller, larger in itertools.pairwise(firsts))
        return [firsts[0], *(rows for rows in others if len(rows))]  # rare classes may be complete from the start on

    def _rows(self, number: int, share: float) -> Indices:
        selected = []
        for rows in self._by_class:
            size = max(min(self._min_per_class, len(rows)), math.ceil(len(rows) * share))
            selected.append(rows[(number * size + np.arange(size)) % len(rows)])
        return np.sort(np.concatenate(selected))

    def repetition(self, part: int) -> int:
        """Return how often all parts have been used before this one."""
        return part // self.count


def segment_ranges(size: int) -> list[range]:
    """Return the segments of a first part of ``size`` images: 2,000, then each as large as all earlier ones together.

    Larger first parts have the same segments and further ones, so what is computed for a segment is computed once.
    """
    ends = [*itertools.takewhile(lambda end: end < size, (FIRST_SEGMENT * 2**n for n in itertools.count())), size]
    return [range(start, end) for start, end in itertools.pairwise([0, *ends])]


def stratified_parts(
    labels: npt.NDArray[np.int64], size: int | None, min_per_class: int = MIN_PER_CLASS
) -> StratifiedParts | None:
    """Return the parts of images with these labels [n]; None if one part has all images, or without a size."""
    return None if size is None or size >= len(labels) else StratifiedParts(labels, size, min_per_class)
