"""Which pictures can be learned from at all: what can be read, and lies in one class only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from data.dataset.image_index import Reading
from data.errors import DataError
from data.sources.base import LeftOut, Picture, Source

FEWEST = 3  # distinct pictures of a class: one for each split


class Screened(NamedTuple):
    """The usable pictures, what is left out, and the conflicts in groups of the same picture."""

    usable: list[Picture]
    left_out: list[LeftOut]
    conflicts: list[list[str]]


def screen(source: Source, readings: Mapping[str, Reading]) -> Screened:
    """Leave out what can't be read, and every copy of a picture that lies in more than one class.

    Raises:
        DataError: nothing can be read, or a class has fewer than ``FEWEST`` distinct pictures left.
    """
    unreadable = [
        LeftOut(path=picture.path, reason=reading.problem, kind="unreadable")
        for picture in source.pictures
        if (reading := readings[picture.path]).problem
    ]
    conflicts = _conflicts(source, readings)
    labels = {picture.path: picture.label for picture in source.pictures}
    left_out = unreadable + [_conflict(path, group, labels) for group in conflicts for path in group]
    without = {item.path for item in left_out}
    usable = [picture for picture in source.pictures if picture.path not in without]
    _check(source, usable, readings, [*unreadable, *source.left_out])
    return Screened(usable, left_out, conflicts)


def _conflicts(source: Source, readings: Mapping[str, Reading]) -> list[list[str]]:
    same: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for picture in source.pictures:
        if digest := readings[picture.path].digest:
            same[digest][picture.path] = picture.label
    return [list(labels) for labels in same.values() if len(set(labels.values())) > 1]


def _conflict(path: str, group: Sequence[str], labels: Mapping[str, str]) -> LeftOut:
    other = next(other for other in group if labels[other] != labels[path])
    return LeftOut(path=path, reason=f"is the same picture as {other}, of another class", kind="conflict")


def _check(
    source: Source, usable: Sequence[Picture], readings: Mapping[str, Reading], left_out: Sequence[LeftOut]
) -> None:
    if all(readings[picture.path].problem for picture in source.pictures):
        raise DataError(
            f"data must hold pictures that can be read, got none among {len(source.pictures)} files in "
            f"{source.address}{_example(left_out)}; check what was put there"
        )
    distinct: defaultdict[str, set[str | None]] = defaultdict(set)
    for picture in usable:
        distinct[picture.label].add(readings[picture.path].digest)
    few = {label: len(distinct[label]) for label in source.classes if len(distinct[label]) < FEWEST}
    if few:
        listed = ", ".join(f"{label} ({count})" for label, count in few.items())
        raise DataError(
            f"every class must have at least {FEWEST} different pictures that can be read and lie in no other class, "
            f"got fewer in {source.address}: {listed}{_example(left_out)}; add pictures or move these folders away"
        )


def _example(left_out: Sequence[LeftOut]) -> str:
    if not left_out:
        return ""
    return f" ({len(left_out)} are left out, such as {left_out[0].path}, which {left_out[0].reason})"
