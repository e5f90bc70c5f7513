"""The checks of the audit: from the image index and the split assignment to a list of findings."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from data.audit.shortcuts import find_shortcuts
from data.dataset.filtering import FilteredImages
from data.dataset.image_index import MIN_HASH_SIDE, ImageInfo
from data.dataset.splitting import SplitAssignment
from data.dataset.value_range import ValueRange
from data.findings import FINDING_TEXTS, Finding, FindingKind
from data.sources.base import SPLITS, DataSource, ImageFile
from data.text import pluralize

IMBALANCE_THRESHOLD = 1.5  # reported if the ratio of the largest to the smallest class is higher
MIN_LEVELS = 24  # gray levels; fewer are left of 10 or 12 bits stored in 16
Groups = list[list[str]]


@dataclasses.dataclass(frozen=True)
class AuditContext:
    """The input of the audit: everything that loading has determined about the images of a source."""

    source: DataSource
    image_index: Mapping[str, ImageInfo]
    filtered: FilteredImages
    near_duplicates: Sequence[Sequence[str]]
    assignment: SplitAssignment
    keep_leaks: bool = False
    untied: Sequence[Sequence[str]] = ()  # near-duplicates that are not kept in the same split
    value_range: ValueRange | None = None

    def findings(self) -> tuple[Finding, ...]:
        """Return one finding for each kind of problem that occurs, in the order of ``FINDING_TEXTS``."""
        by_kind = {finding.kind: finding for finding in self._all_findings() if finding.count}
        return tuple(by_kind[kind] for kind in FINDING_TEXTS if kind in by_kind)

    def _all_findings(self) -> Iterator[Finding]:
        for kind in ("unreadable", "missing", "unlabeled"):
            yield self._skipped(kind)
        yield self._conflicts()
        yield from self._duplicates()
        yield _finding(
            "split_conflict",
            [[path] for path, excluded in self.assignment.excluded.items() if excluded.reason == "split_conflict"],
        )
        yield self._missing_classes()
        yield self._imbalance()
        yield self._similar_names()
        yield self._shortcuts()
        yield _finding("tiny", [[path] for path, info in self._usable() if info.short_side < MIN_HASH_SIDE])
        yield _finding("uniform", [[path] for path, info in self._usable() if info.is_uniform])
        yield _finding("few_levels", [[path] for path, info in self._usable() if self._has_few_levels(info)])
        yield _finding("pages", [[path] for path, info in self._usable() if info.num_pages > 1])
        yield _finding(
            "grayscale_stored_as_color", [[path] for path, info in self._usable() if info.is_gray_stored_as_color]
        )

    def _usable(self) -> Iterator[tuple[str, ImageInfo]]:
        for image in self.filtered.usable:
            yield image.path, self.image_index[image.path]

    def _has_few_levels(self, info: ImageInfo) -> bool:
        if info.value_range is None or self.value_range is None:
            return False
        (low, high), (black, white) = info.value_range, self.value_range
        return 255 * (min(high, white) - max(low, black)) < (MIN_LEVELS - 1) * (white - black)

    def _skipped(self, kind: FindingKind) -> Finding:
        files = [file for file in (*self.source.skipped, *self.filtered.skipped) if file.kind == kind]
        count = sum(file.num_files for file in files)
        return _finding(kind, [[file.path] for file in files], count=count, reasons=[file.reason for file in files])

    def _conflicts(self) -> Finding:
        """Identical images with different labels, and files to which a manifest gives several labels."""
        identical = self.filtered.conflicts
        relabeled = [file for file in self.source.skipped if file.kind == "conflict"]
        reasons = [*[""] * len(identical), *(file.reason for file in relabeled)]
        return _finding("conflict", [*identical, *([file.path] for file in relabeled)], reasons=reasons)

    def _duplicates(self) -> Iterator[Finding]:
        usable = self.filtered.usable
        hashed = [(str(self.image_index[image.path].content_hash), image) for image in usable]
        exact_groups = _grouped(hashed)
        group_keys = {content_hash: group[0] for group in self.near_duplicates for content_hash in group}
        near_groups = _grouped((group_keys.get(content_hash, content_hash), image) for content_hash, image in hashed)
        near_groups = [
            group for group in near_groups if len({self.image_index[image.path].content_hash for image in group}) > 1
        ]
        mixed_groups = [group for group in near_groups if len({image.label for image in group}) > 1]
        yield _finding("duplicate", _paths(group for group in exact_groups if _num_given_splits(group) < 2))
        in_one_split = [group for group in near_groups if group not in mixed_groups and _num_given_splits(group) < 2]
        yield _finding("near_duplicate", _paths(in_one_split))
        yield _finding("near_conflict", _paths(mixed_groups))
        untied_keys = {content_hash: group[0] for group in self.untied for content_hash in group}
        untied = [(untied_keys[content_hash], image) for content_hash, image in hashed if content_hash in untied_keys]
        yield _finding("near_duplicate_untied", _paths(_grouped(untied)))
        leaks = [group for group in near_groups if _num_given_splits(group) > 1]
        covered = {image.path for group in leaks for image in group}  # near groups include the exact duplicates
        leaks += [group for group in exact_groups if _num_given_splits(group) > 1 and group[0].path not in covered]
        yield self._leaks("leak", leaks)
        user_groups = _grouped((image.group, image) for image in usable if image.group)
        yield self._leaks("group_leak", [group for group in user_groups if _num_given_splits(group) > 1])

    def _leaks(self, kind: FindingKind, groups: Iterable[Iterable[ImageFile]]) -> Finding:
        return _finding(kind, _paths(groups), action="kept as provided (on_leak=keep)" if self.keep_leaks else "")

    def _missing_classes(self) -> Finding:
        present = {(image.label, self.assignment.splits.get(image.path)) for image in self.filtered.usable}
        missing = [
            f"{label} in {split}" for label in self.source.classes for split in SPLITS if (label, split) not in present
        ]
        return _finding("class_missing", [], ", ".join(missing), count=len(missing))

    def _imbalance(self) -> Finding:
        sizes = Counter(image.label for image in self.filtered.usable)
        (largest, max_size), *_, (smallest, min_size) = sizes.most_common()
        ratio = max_size / min_size
        detail = f"{largest} has {pluralize(max_size, 'image')}, {smallest} has {min_size:,} (ratio {ratio:.1f})"
        return _finding("imbalance", [], detail, count=len(sizes) if ratio > IMBALANCE_THRESHOLD else 0)

    def _shortcuts(self) -> Finding:
        shortcuts = find_shortcuts(self.filtered.usable, self.image_index)
        detail = "; ".join(
            f"{each.name} alone tells the class of {each.balanced_accuracy:.0%} of the images" for each in shortcuts
        )
        guessing = f" (guessing: {1 / len(self.source.classes):.0%})" if shortcuts else ""
        return _finding("shortcut", [], detail + guessing, count=len(shortcuts))

    def _similar_names(self) -> Finding:
        by_normalized: defaultdict[str, list[str]] = defaultdict(list)
        for name in self.source.classes:
            by_normalized[re.sub(r"[\s_-]+", "", name).casefold()].append(name)
        groups = [names for names in by_normalized.values() if len(names) > 1]
        detail = "; ".join(" and ".join(map(repr, names)) for names in groups)
        return _finding("similar_names", [], detail, count=sum(map(len, groups)))


def _finding(
    kind: FindingKind,
    groups: Groups,
    detail: str = "",
    count: int | None = None,
    action: str = "",
    reasons: Sequence[str] = (),
) -> Finding:
    return Finding(
        kind=kind,
        count=len({path for group in groups for path in group}) if count is None else count,
        files=tuple(tuple(group) for group in groups),
        reasons=tuple(reasons),
        detail=detail,
        action=action or FINDING_TEXTS[kind].action,
    )


def _grouped(keyed: Iterable[tuple[str | None, ImageFile]]) -> list[list[ImageFile]]:
    """Group images by their key; images with a unique key are dropped."""
    groups: defaultdict[str | None, list[ImageFile]] = defaultdict(list)
    for key, image in keyed:
        groups[key].append(image)
    return [group for group in groups.values() if len(group) > 1]


def _paths(groups: Iterable[Iterable[ImageFile]]) -> Groups:
    return [[image.path for image in group] for group in groups]


def _num_given_splits(group: Iterable[ImageFile]) -> int:
    return len({image.split for image in group if image.split})
