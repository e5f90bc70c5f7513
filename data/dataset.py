"""A data set: pictures that can be read, each with its label and its split, and what was left out."""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from data.errors import DataError
from data.readings import Progress, Reading, read_all
from data.sources import LeftOut, Picture, Source, SplitName, open_source
from data.sources.base import SPLITS
from data.splits import Placed, assign
from data.values import Value

FEWEST = 3  # distinct pictures of a class: one for each split


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
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    left_out: tuple[LeftOut, ...] = ()
    median_side: int

    @property
    def fingerprint(self) -> str:
        """The name of what is learned from: the same pictures, class names and splits give the same text."""
        rows = sorted((sample.digest, self.classes[sample.label], sample.split) for sample in self.samples)
        return hashlib.blake2b(repr(rows).encode(), digest_size=16).hexdigest()

    def split(self, name: SplitName) -> tuple[Sample, ...]:
        """Return the samples of one split, in their order."""
        return tuple(sample for sample in self.samples if sample.split == name)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of pictures by split and class name."""
        counted = Counter((sample.split, sample.label) for sample in self.samples)
        return {split: {name: counted[split, i] for i, name in enumerate(self.classes)} for split in SPLITS}


def load_dataset(data: str, progress: Progress | None = None) -> Dataset:
    """Open what ``data`` names, read every picture, and place each in a split.

    ``progress(what, done, of)`` is called as pictures are read. Nothing in the user's folder is changed.

    Raises:
        DataError: there is no such data set, or nothing can be learned from it.
    """
    source = open_source(data)
    readings = read_all(source.root, [picture.path for picture in source.pictures], progress)
    unreadable = [LeftOut(path=path, reason=reading.problem) for path, reading in readings.items() if reading.problem]
    readable = [picture for picture in source.pictures if not readings[picture.path].problem]
    conflicts = _conflicts(readable, readings)
    usable = [picture for picture in readable if picture.path not in conflicts]
    _check_enough(source, usable, readings, unreadable)
    samples, leaks = _place(source, usable, readings)
    return Dataset(
        name=source.name,
        root=source.root,
        classes=source.classes,
        samples=samples,
        left_out=(*source.left_out, *unreadable, *conflicts.values(), *leaks),
        median_side=_median_side(readings[sample.path] for sample in samples),
    )


def _conflicts(pictures: Sequence[Picture], readings: Mapping[str, Reading]) -> dict[str, LeftOut]:
    """Return by path the pictures that lie, pixel for pixel, in more than one class."""
    classes: defaultdict[str | None, dict[str, str]] = defaultdict(dict)
    for picture in pictures:
        classes[readings[picture.path].digest][picture.label] = picture.path
    found = {}
    for picture in pictures:
        same = classes[readings[picture.path].digest]
        others = [path for label, path in same.items() if label != picture.label]
        if others:
            reason = f"is the same picture as {others[0]}, of another class"
            found[picture.path] = LeftOut(path=picture.path, reason=reason)
    return found


def _check_enough(
    source: Source, usable: Sequence[Picture], readings: Mapping[str, Reading], unreadable: Sequence[LeftOut]
) -> None:
    if not usable:
        raise DataError(
            f"data must hold pictures that can be read, got none among {len(source.pictures)} files in {source.root}"
            f"{_example(unreadable)}; check what was put there"
        )
    distinct: defaultdict[str, set[str | None]] = defaultdict(set)
    for picture in usable:
        distinct[picture.label].add(readings[picture.path].digest)
    few = {label: len(distinct[label]) for label in source.classes if len(distinct[label]) < FEWEST}
    if few:
        listed = ", ".join(f"{label} ({count})" for label, count in few.items())
        raise DataError(
            f"every class must have at least {FEWEST} different pictures that can be read, got fewer in {source.root}: "
            f"{listed}{_example(unreadable)}; add pictures or move these folders away"
        )


def _example(unreadable: Sequence[LeftOut]) -> str:
    if not unreadable:
        return ""
    return f" ({len(unreadable)} can't be read, such as {unreadable[0].path}, which {unreadable[0].reason})"


def _place(
    source: Source, usable: Sequence[Picture], readings: Mapping[str, Reading]
) -> tuple[tuple[Sample, ...], list[LeftOut]]:
    digests = {picture.path: str(readings[picture.path].digest) for picture in usable}
    placed = assign(Placed(digest=digests[item.path], label=item.label, given=item.split) for item in usable)
    samples, leaks = [], []
    for item in usable:
        split = placed[digests[item.path]]
        if item.split and item.split != split and split in source.given_splits:
            leaks.append(LeftOut(path=item.path, reason=f"is also in {split}: left out of {item.split}"))
        else:
            label = source.classes.index(item.label)
            samples.append(Sample(path=item.path, label=label, split=split, digest=digests[item.path]))
    return tuple(sorted(samples, key=_order)), leaks


def _order(sample: Sample) -> tuple[int, str, str]:
    return SPLITS.index(sample.split), sample.digest, sample.path


def _median_side(readings: Iterator[Reading]) -> int:
    return round(statistics.median(min(reading.width, reading.height) for reading in readings))
