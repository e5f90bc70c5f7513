"""A loaded data set: its images with label and split, the skipped files, and the findings of the audit."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pydantic import Field

from data.dataset.image_index import MIN_HASH_SIDE
from data.dataset.stratified_parts import stratified_parts
from data.dataset.value_range import ValueRange
from data.findings import Finding
from data.frozen_model import FrozenModel
from data.sources.base import SPLITS, SkippedFile, SplitName


class Sample(FrozenModel):
    """One image of a data set.

    Attributes:
        path: relative to the root, with ``/``.
        label: index of the class.
        content_hash: hash of its pixels.
        group: name of its group of linked images (same pixels, near-duplicates, or a group of the manifest), which no
            split and no fold separates; empty for an image without links.
    """

    path: str
    label: int
    split: SplitName
    content_hash: str
    group: str = ""


class Dataset(FrozenModel):
    """The images of a data set with their labels and splits.

    Attributes:
        name: name of the data set: letters, digits, ``- _ .``.
        root: absolute folder that all paths are relative to.
        classes: class names, indexed by label.
        samples: all images that are in a split, sorted by split (train, val, test), content hash and path.
        skipped: all other files, with the reason.
        median_short_side: median of the short sides of the samples, in pixels.
        value_range: values that become black and white in images of more than 8 bits, by those of the training split;
            None without such images.
        findings: findings of the audit, one for each kind of problem.
        layout: what was understood of the layout, one line each.
        provided_splits: the splits that the user provided; all others were cut from the training images.
        limits: the largest numbers of images, by split, that the samples were limited to.
        full_fingerprint: the fingerprint of the data set of which this is a part; empty if it is complete.
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    skipped: tuple[SkippedFile, ...] = ()
    median_short_side: int
    value_range: ValueRange | None = None
    findings: tuple[Finding, ...] = ()
    layout: tuple[str, ...] = ()
    provided_splits: tuple[SplitName, ...] = ()
    limits: dict[SplitName, int] = Field(default_factory=dict)
    full_fingerprint: str = ""

    @property
    def num_skipped(self) -> int:
        """The number of files that are in no split."""
        return sum(file.num_files for file in self.skipped)

    @property
    def fingerprint(self) -> str:
        """Hash of the images, class names and splits as they were loaded; independent of file names."""
        return self.full_fingerprint or self.samples_fingerprint

    @property
    def samples_fingerprint(self) -> str:
        """Hash of the samples, which may be a part of these images."""
        rows = sorted((sample.content_hash, self.classes[sample.label], sample.split) for sample in self.samples)
        return hashlib.blake2b(repr(rows).encode(), digest_size=16).hexdigest()

    def with_samples(self, samples: Iterable[Sample]) -> Dataset:
        """Return the data set reduced to some of its samples."""
        return self.model_copy(update={"samples": in_order(samples), "full_fingerprint": self.fingerprint})

    @property
    def imbalance(self) -> float:
        """Ratio of the largest to the smallest non-empty class of the training split."""
        sizes = [size for size in self.counts()["train"].values() if size]
        return max(sizes) / min(sizes)

    @property
    def has_small_images(self) -> bool:
        """Whether the median short side is below 32 px, so that the images must be upscaled."""
        return self.median_short_side < MIN_HASH_SIDE

    def split(self, name: SplitName) -> tuple[Sample, ...]:
        """Return the samples of one split, in order."""
        return tuple(sample for sample in self.samples if sample.split == name)

    def with_classes(self, classes: tuple[str, ...]) -> Dataset:
        """Return the data set with labels that are indices of ``classes``, which contain all classes of its samples."""
        labels = [classes.index(name) if name in classes else -1 for name in self.classes]
        samples = tuple(sample.model_copy(update={"label": labels[sample.label]}) for sample in self.samples)
        return self.model_copy(update={"classes": classes, "samples": samples})

    def with_limited(self, split: SplitName, max_images: int) -> Dataset:
        """Return the data set with at most about ``max_images`` images of a split, drawn by class."""
        before = self.split(split)
        parts = stratified_parts(np.array([sample.label for sample in before], dtype=np.int64), max_images)
        if parts is None:
            return self
        kept = [before[row] for row in parts.rows(0)]
        others = [sample for sample in self.samples if sample.split != split]
        line = f"{split}: {len(kept):,} of {len(before):,} images, drawn by class"
        changes = {"layout": (*self.layout, line), "limits": {**self.limits, split: max_images}}
        return self.with_samples([*others, *kept]).model_copy(update=changes)

    @property
    def development(self) -> tuple[Sample, ...]:
        """The training samples, followed by the validation samples."""
        return (*self.split("train"), *self.split("val"))

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of images by split and class name."""
        counts = Counter((sample.split, sample.label) for sample in self.samples)
        return {split: {name: counts[split, label] for label, name in enumerate(self.classes)} for split in SPLITS}


def in_order(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """Return samples by split, then by content: the order does not depend on names of files."""
    return tuple(sorted(samples, key=lambda sample: (SPLITS.index(sample.split), sample.content_hash, sample.path)))
