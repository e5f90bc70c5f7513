"""A data set: pictures that can be read, each with its label and its split, and what was left out."""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from data.errors import DataError
from data.examine import Examined
from data.findings import Finding
from data.parallel import Progress
from data.readings import HASHED_SIDE, Reading, read_all
from data.screening import screen
from data.sources import LeftOut, Picture, Source, SplitName, open_source
from data.sources.base import SPLITS
from data.splitfile import remembered_splits
from data.splits import Item, Placement, Shut, place
from data.twins import find_twins
from data.values import Value


class Sample(Value):
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
    digest: str


class Dataset(Value):
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
    left_out: tuple[LeftOut, ...] = ()
    median_side: int
    findings: tuple[Finding, ...] = ()

    @property
    def fingerprint(self) -> str:
        """The name of what is learned from: the same pictures, class names and splits give the same text."""
        rows = sorted((sample.digest, self.classes[sample.label], sample.split) for sample in self.samples)
        return hashlib.blake2b(repr(rows).encode(), digest_size=16).hexdigest()

    @property
    def imbalance(self) -> float:
        """Training pictures of the largest class for one of the smallest that has any."""
        sizes = [size for size in self.counts()["train"].values() if size]
        return max(sizes) / min(sizes)

    @property
    def is_tiny(self) -> bool:
        """Whether the middle picture is one that the audit calls tiny: to be learned from, it has to be blown up."""
        return self.median_side < HASHED_SIDE

    def split(self, name: SplitName) -> tuple[Sample, ...]:
        """Return the samples of one split, in their order."""
        return tuple(sample for sample in self.samples if sample.split == name)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of pictures by split and class name."""
        counted = Counter((sample.split, sample.label) for sample in self.samples)
        return {split: {name: counted[split, i] for i, name in enumerate(self.classes)} for split in SPLITS}


def load_dataset(data: str, progress: Progress | None = None, keep_leaks: bool = False) -> Dataset:
    """Open what ``data`` names, read every picture, look for trouble, and place each picture in a split.

    ``progress(what, done, of)`` is called as pictures are read. Nothing in the user's folder is changed.
    A picture of a given training or validation split that is tied to one in a later split is left out of the
    earlier one, unless ``keep_leaks``.

    Raises:
        DataError: there is no such data set, or nothing can be learned from it.
    """
    source = open_source(data, progress)
    readings = read_all(source.root, [picture.path for picture in source.pictures], progress)
    screened = screen(source, readings)
    twins = _twins(source, screened.usable, readings, progress)
    items = [_item(picture, readings) for picture in screened.usable]
    with remembered_splits(source.address) as remembered:
        placement = place(items, twins, remembered, keep_leaks)
        _check_splits(source, placement)
        remembered.update(placement.chosen)
    examined = Examined(source, readings, screened, twins, placement, keep_leaks)
    shut = [_shut(path, shut) for path, shut in placement.shut.items()]
    return Dataset(
        name=source.name,
        root=source.root,
        classes=source.classes,
        samples=_samples(source, items, placement),
        left_out=(*source.left_out, *screened.left_out, *shut),
        median_side=round(statistics.median(readings[path].short_side for path in placement.splits)),
        findings=examined.findings(),
    )


def _twins(
    source: Source, usable: Sequence[Picture], readings: Mapping[str, Reading], progress: Progress | None
) -> list[list[str]]:
    looks, paths = {}, {}
    for picture in usable:
        digest = str(readings[picture.path].digest)
        looks[digest], paths[digest] = readings[picture.path].look, source.root / picture.path
    return find_twins(looks, paths, progress)


def _item(picture: Picture, readings: Mapping[str, Reading]) -> Item:
    digest = str(readings[picture.path].digest)
    return Item(path=picture.path, digest=digest, label=picture.label, given=picture.split, group=picture.group)


def _check_splits(source: Source, placement: Placement) -> None:
    empty = [split for split in SPLITS if split not in placement.splits.values()]
    if empty:
        raise DataError(
            f"training, validation and test must each have a picture, got none for {' and '.join(empty)} "
            f"in {source.root} ({len(placement.shut)} are left out because they are tied to pictures on the other "
            "side); add pictures that are not, or give fewer splits or groups"
        )


def _shut(path: str, shut: Shut) -> LeftOut:
    reason = f"belongs together with {shut.other} of the {shut.split} split"
    if shut.why == "torn":
        reason = f"is new and belongs together with old pictures of two splits, such as {shut.other} of {shut.split}"
    return LeftOut(path=path, reason=reason, kind=shut.why)


def _samples(source: Source, items: Sequence[Item], placement: Placement) -> tuple[Sample, ...]:
    labels = {name: label for label, name in enumerate(source.classes)}
    samples = [
        Sample(path=item.path, label=labels[item.label], split=placement.splits[item.path], digest=item.digest)
        for item in items
        if item.path in placement.splits
    ]
    return tuple(sorted(samples, key=lambda sample: (SPLITS.index(sample.split), sample.digest, sample.path)))
