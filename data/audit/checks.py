"""From what was read and placed to the list of findings."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from data.dataset.filtering import FilteredImages
from data.dataset.image_index import MIN_HASH_SIDE, ImageInfo
from data.dataset.splitting import SplitAssignment
from data.findings import FINDING_TEXTS, Finding, FindingKind
from data.sources.base import SPLITS, DataSource, ImageFile

IMBALANCE = 1.5  # pictures of the largest class for one of the smallest, above which it is reported
Groups = list[list[str]]


@dataclasses.dataclass(frozen=True)
class AuditContext:
    """Everything that is known about the pictures of a source once they have been placed."""

    source: DataSource
    image_index: Mapping[str, ImageInfo]
    filtered: FilteredImages
    near_duplicates: Sequence[Sequence[str]]
    assignment: SplitAssignment
    keep_leaks: bool = False

    def findings(self) -> tuple[Finding, ...]:
        """Return one finding for each kind of problem that there is, in the order of ``FINDING_TEXTS``."""
        found = {finding.kind: finding for finding in self._all() if finding.count}
        return tuple(found[kind] for kind in FINDING_TEXTS if kind in found)

    def _all(self) -> Iterator[Finding]:
        for kind in ("unreadable", "missing", "unlabeled"):
            yield self._skipped(kind)
        yield _of("conflict", self.filtered.conflicts)
        yield from self._duplicates()
        yield _of(
            "split_conflict",
            [[path] for path, why in self.assignment.excluded.items() if why.reason == "split_conflict"],
        )
        yield self._missing_classes()
        yield self._imbalance()
        yield self._similar_names()
        yield _of("tiny", [[path] for path, reading in self._usable() if reading.short_side < MIN_HASH_SIDE])
        yield _of(
            "grayscale_stored_as_color", [[path] for path, reading in self._usable() if reading.is_gray_stored_as_color]
        )

    def _usable(self) -> Iterator[tuple[str, ImageInfo]]:
        for picture in self.filtered.usable:
            yield picture.path, self.image_index[picture.path]

    def _skipped(self, kind: FindingKind) -> Finding:
        items = [item for item in (*self.source.skipped, *self.filtered.skipped) if item.kind == kind]
        return _of(kind, [[item.path] for item in items], reasons=[item.reason for item in items])

    def _duplicates(self) -> Iterator[Finding]:
        usable = self.filtered.usable
        exact = _grouped((str(self.image_index[picture.path].content_hash), picture) for picture in usable)
        heads = {digest: group[0] for group in self.near_duplicates for digest in group}
        digests = ((str(self.image_index[picture.path].content_hash), picture) for picture in usable)
        near = _grouped((heads.get(digest, digest), picture) for digest, picture in digests)
        near = [group for group in near if len({self.image_index[picture.path].content_hash for picture in group}) > 1]
        mixed = [group for group in near if len({picture.label for picture in group}) > 1]
        yield _of("duplicate", _paths(exact))
        yield _of("near_duplicate", _paths(group for group in near if group not in mixed))
        yield _of("near_conflict", _paths(mixed))
        leaking = [group for group in near if _given_splits(group) > 1]
        nearly = {picture.path for group in leaking for picture in group}  # holds its exact copies, if it has any
        leaking += [group for group in exact if _given_splits(group) > 1 and group[0].path not in nearly]
        yield self._leaks("leak", leaking)
        by_group = _grouped((picture.group, picture) for picture in usable if picture.group)
        yield self._leaks("group_leak", [group for group in by_group if _given_splits(group) > 1])

    def _leaks(self, kind: FindingKind, groups: Iterable[Iterable[ImageFile]]) -> Finding:
        return _of(kind, _paths(groups), done="kept where they are, as told" if self.keep_leaks else "")

    def _missing_classes(self) -> Finding:
        placed = {(picture.label, self.assignment.splits.get(picture.path)) for picture in self.filtered.usable}
        holes = [
            f"{name} in {split}" for name in self.source.classes for split in SPLITS if (name, split) not in placed
        ]
        return _of("class_missing", [], ", ".join(holes), count=len(holes))

    def _imbalance(self) -> Finding:
        sizes = Counter(picture.label for picture in self.filtered.usable)
        (most, large), *_, (least, small) = sizes.most_common()
        ratio = large / small
        detail = f"{most} has {large} pictures, {least} has {small}: {ratio:.1f} to 1"
        return _of("imbalance", [], detail, count=len(sizes) if ratio > IMBALANCE else 0)

    def _similar_names(self) -> Finding:
        alike: defaultdict[str, list[str]] = defaultdict(list)
        for name in self.source.classes:
            alike[re.sub(r"[\s_-]+", "", name).casefold()].append(name)
        groups = [names for names in alike.values() if len(names) > 1]
        detail = "; ".join(" and ".join(map(repr, names)) for names in groups)
        return _of("similar_names", [], detail, count=sum(map(len, groups)))


def _of(
    kind: FindingKind,
    groups: Groups,
    detail: str = "",
    count: int | None = None,
    done: str = "",
    reasons: Sequence[str] = (),
) -> Finding:
    return Finding(
        kind=kind,
        count=len({path for group in groups for path in group}) if count is None else count,
        files=tuple(tuple(group) for group in groups),
        reasons=tuple(reasons),
        detail=detail,
        action=done or FINDING_TEXTS[kind].action,
    )


def _grouped(keyed: Iterable[tuple[str | None, ImageFile]]) -> list[list[ImageFile]]:
    found: defaultdict[str | None, list[ImageFile]] = defaultdict(list)
    for key, picture in keyed:
        found[key].append(picture)
    return [group for group in found.values() if len(group) > 1]


def _paths(groups: Iterable[Iterable[ImageFile]]) -> Groups:
    return [[picture.path for picture in group] for group in groups]


def _given_splits(group: Iterable[ImageFile]) -> int:
    return len({picture.split for picture in group if picture.split})
