"""Which pictures can be learned from at all: what can be read, and lies in one class only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from data.dataset.image_index import ImageInfo
from data.errors import DataError
from data.sources.base import DataSource, ImageFile, SkippedFile

MIN_IMAGES_PER_CLASS = 3  # distinct pictures of a class: one for each split


class FilteredImages(NamedTuple):
    """The usable pictures, what is left out, and the conflicts in groups of the same picture."""

    usable: list[ImageFile]
    skipped: list[SkippedFile]
    conflicts: list[list[str]]


def filter_images(source: DataSource, image_index: Mapping[str, ImageInfo]) -> FilteredImages:
    """Leave out what can't be read, and every copy of a picture that lies in more than one class.

    Raises:
        DataError: nothing can be read, or a class has fewer than ``MIN_IMAGES_PER_CLASS`` distinct pictures left.
    """
    unreadable = [
        SkippedFile(path=picture.path, reason=reading.problem, kind="unreadable")
        for picture in source.images
        if (reading := image_index[picture.path]).problem
    ]
    conflicts = _conflicts(source, image_index)
    labels = {picture.path: picture.label for picture in source.images}
    left_out = unreadable + [_conflict(path, group, labels) for group in conflicts for path in group]
    without = {item.path for item in left_out}
    usable = [picture for picture in source.images if picture.path not in without]
    _check(source, usable, image_index, [*unreadable, *source.skipped])
    return FilteredImages(usable, left_out, conflicts)


def _conflicts(source: DataSource, readings: Mapping[str, ImageInfo]) -> list[list[str]]:
    same: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for picture in source.images:
        if digest := readings[picture.path].content_hash:
            same[digest][picture.path] = picture.label
    return [list(labels) for labels in same.values() if len(set(labels.values())) > 1]


def _conflict(path: str, group: Sequence[str], labels: Mapping[str, str]) -> SkippedFile:
    other = next(other for other in group if labels[other] != labels[path])
    return SkippedFile(path=path, reason=f"is the same picture as {other}, of another class", kind="conflict")


def _check(
    source: DataSource, usable: Sequence[ImageFile], readings: Mapping[str, ImageInfo], left_out: Sequence[SkippedFile]
) -> None:
    if all(readings[picture.path].problem for picture in source.images):
        raise DataError(
            f"data must hold pictures that can be read, got none among {len(source.images)} files in "
            f"{source.uri}{_example(left_out)}; check what was put there"
        )
    distinct: defaultdict[str, set[str | None]] = defaultdict(set)
    for picture in usable:
        distinct[picture.label].add(readings[picture.path].content_hash)
    few = {label: len(distinct[label]) for label in source.classes if len(distinct[label]) < MIN_IMAGES_PER_CLASS}
    if few:
        listed = ", ".join(f"{label} ({count})" for label, count in few.items())
        raise DataError(
            f"every class must have at least {MIN_IMAGES_PER_CLASS} different pictures that can be read and lie in no other class, "
            f"got fewer in {source.uri}: {listed}{_example(left_out)}; add pictures or move these folders away"
        )


def _example(left_out: Sequence[SkippedFile]) -> str:
    if not left_out:
        return ""
    return f" ({len(left_out)} are left out, such as {left_out[0].path}, which {left_out[0].reason})"
