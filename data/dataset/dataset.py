"""A data set: pictures that can be read, each with its label and its split, and what was left out."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

from data.dataset.image_index import MIN_HASH_SIDE
from data.findings import Finding
from data.frozen_model import FrozenModel
from data.sources.base import SPLITS, SkippedFile, SplitName


class Sample(FrozenModel):
    """One picture.

    Attributes:
        path: relative to the data set's root, with ``/``.
        label: index into the data set's classes.
        split: train, val or test.
        digest: of its upright RGB pixels.
    """

    path: str
    label: int
    split: SplitName
    content_hash: str


class Dataset(FrozenModel):
    """Pictures that can be read, sorted by split (train, val, test), digest and path.

    Attributes:
        name: letters, digits, ``- _ .``.
        root: absolute folder that all paths are relative to.
        classes: names in the order of the labels.
        samples: every picture that is in a split.
        left_out: every file that is not, with the reason.
        median_side: median short side of the samples, in pixels.
        findings: what the audit found, one for each kind of problem.
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    skipped: tuple[SkippedFile, ...] = ()
    median_short_side: int
    findings: tuple[Finding, ...] = ()

    @property
    def fingerprint(self) -> str:
        """The name of what is learned from: the same pictures, class names and splits give the same text."""
        rows = sorted((sample.content_hash, self.classes[sample.label], sample.split) for sample in self.samples)
        return hashlib.blake2b(repr(rows).encode(), digest_size=16).hexdigest()

    @property
    def imbalance(self) -> float:
        """Training pictures of the largest class for one of the smallest that has any."""
        sizes = [size for size in self.counts()["train"].values() if size]
        return max(sizes) / min(sizes)

    @property
    def has_small_images(self) -> bool:
        """Whether the middle picture is one that the audit calls tiny: to be learned from, it has to be blown up."""
        return self.median_short_side < MIN_HASH_SIDE

    def split(self, name: SplitName) -> tuple[Sample, ...]:
        """Return the samples of one split, in their order."""
        return tuple(sample for sample in self.samples if sample.split == name)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of pictures by split and class name."""
        counted = Counter((sample.split, sample.label) for sample in self.samples)
        return {split: {name: counted[split, i] for i, name in enumerate(self.classes)} for split in SPLITS}
