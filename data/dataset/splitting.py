"""Assignment of images to the train, val and test splits, by content and not by file name.

The rules, by precedence:

1. Linked images (same pixels, near-duplicates, or same group) are in the same split.
2. An image never leaves the split that an earlier call assigned it to.
3. Every class has an image in every split.
4. The ratios are 70/15/15 for each class.

Remaining choices follow from the content hashes, so renaming, moving or reordering files changes nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

from filelock import FileLock

from data.atomic_write import write_atomically
from data.errors import DataError
from data.home import state_dir
from data.sources.base import SPLITS, ImageFile, SplitName

HOLDOUT_FRACTION = 0.15  # of the images of a class, for each of val and test


class Excluded(NamedTuple):
    """Why an image is in no split, with the path and the split of a linked image.

    ``leak``: it is in a provided split, and a duplicate, near-duplicate or image of its group is in a later one.
    ``split_conflict``: it is new, and such images are in several splits.
    """

    reason: Literal["leak", "split_conflict"]
    other: str
    split: SplitName


class SplitItem(ImageFile):
    """An image to be assigned, with the hash of its content; ``split`` is the one that the user provided."""

    content_hash: str


@dataclasses.dataclass(frozen=True)
class SplitAssignment:
    """The result of ``assign_splits``.

    Attributes:
        splits: the split of each image by path.
        excluded: the excluded images by path.
        new_assignments: the new splits by content hash, to be persisted.
        groups: the name of the group of each linked image by path; images without links are missing.
    """

    splits: dict[str, SplitName] = dataclasses.field(default_factory=dict)
    excluded: dict[str, Excluded] = dataclasses.field(default_factory=dict)
    new_assignments: dict[str, SplitName] = dataclasses.field(default_factory=dict)
    groups: dict[str, str] = dataclasses.field(default_factory=dict)


def assign_splits(
    items: Sequence[SplitItem],
    near_duplicates: Iterable[Sequence[str]] = (),
    persisted: Mapping[str, SplitName] | None = None,
    keep_leaks: bool = False,
) -> SplitAssignment:
    """Assign each image to a split, given groups of content hashes of near-duplicates and earlier ``new_assignments``.

    Provided splits are kept. A missing one is taken from the provided training images; images without a provided
    split then count as training images. With ``keep_leaks`` leaking images stay in their provided split.
    """
    given_splits = {item.split for item in items if item.split}
    managed_splits = tuple(split for split in SPLITS if split == "train" or split not in given_splits)
    assignment = SplitAssignment()
    builder = _SplitBuilder(managed_splits, persisted or {})
    for group in _groups(items, near_duplicates):
        if len(group.items) > 1:
            assignment.groups.update((item.path, group.key) for item in group.items)
        if group.given_splits - {"train"} or len(managed_splits) == 1:
            _keep_given_splits(group, assignment, keep_leaks)
        else:
            builder.add(group)
    builder.fill()
    for group, split in builder.assigned.items():
        assignment.splits.update((item.path, split) for item in group.items)
    for item, split in builder.fixed.items():
        assignment.splits[item.path] = split
    assignment.excluded.update(builder.conflicting)
    assignment.new_assignments.update((item.content_hash, assignment.splits[item.path]) for item in builder.items())
    return assignment


@contextmanager
def persisted_splits(uri: str) -> Iterator[dict[str, SplitName]]:
    """Context manager: give the splits of the data set ``uri`` by content hash, and save them if no exception occurs.

    The file is locked inside the context. Images that were removed from the data set keep their entry, because they
    may be added again.

    Raises:
        DataError: the file is corrupt. It is not replaced, because new assignments would move existing images.
    """
    path = state_dir() / "splits" / f"{hashlib.blake2b(uri.encode(), digest_size=16).hexdigest()}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        before: dict[str, SplitName] = {}
        try:
            before = json.loads(path.read_bytes())["splits"]
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"a split file must be JSON written by Freezeline, got other content in {path}; "
                "restore a backup, or delete the file to assign new splits"
            ) from error
        splits = dict(before)
        yield splits
        if splits != before:
            write_atomically(path, json.dumps({"data": uri, "splits": splits}, indent=0, sort_keys=True).encode())


@dataclasses.dataclass(frozen=True, eq=False)
class _Group:
    """A set of linked images."""

    items: tuple[SplitItem, ...]
    key: str  # the smallest content hash, used as a tie-breaker
    labels: Counter[str]
    given_splits: set[SplitName]  # provided by the user


def _groups(items: Sequence[SplitItem], near_duplicates: Iterable[Sequence[str]]) -> list[_Group]:
    from scipy.cluster.hierarchy import DisjointSet

    known_hashes = {item.content_hash for item in items}
    links = DisjointSet(("content_hash", content_hash) for content_hash in known_hashes)
    for hashes in near_duplicates:
        present = [content_hash for content_hash in hashes if content_hash in known_hashes]
        for content_hash in present[1:]:
            links.merge(("content_hash", present[0]), ("content_hash", content_hash))
    for item in items:
        if item.group:
            links.add(("group", item.group))
            links.merge(("content_hash", item.content_hash), ("group", item.group))
    by_root: defaultdict[tuple[str, str], list[SplitItem]] = defaultdict(list)
    for item in items:
        by_root[links["content_hash", item.content_hash]].append(item)
    groups = [
        _Group(
            items=tuple(members),
            key=min(item.content_hash for item in members),
            labels=Counter(item.label for item in members),
            given_splits={item.split for item in members if item.split},
        )
        for members in by_root.values()
    ]
    return sorted(groups, key=lambda group: group.key)


def _keep_given_splits(group: _Group, assignment: SplitAssignment, keep_leaks: bool) -> None:
    """Keep a group in its provided split.

    A group that spans several is kept in the last of train, val and test; its images that were provided in another
    split are excluded unless ``keep_leaks``.
    """
    last = max(group.given_splits or {SPLITS[0]}, key=SPLITS.index)
    for item in group.items:
        if item.split in (None, last) or keep_leaks:
            assignment.splits[item.path] = item.split or last
        else:
            other = next(other for other in group.items if other.split == last)
            assignment.excluded[item.path] = Excluded("leak", other.path, last)


class _SplitBuilder:
    """Assigns groups to the splits that the user did not provide, and to train."""

    def __init__(self, managed_splits: Sequence[SplitName], persisted: Mapping[str, SplitName]) -> None:
        self.managed_splits = managed_splits
        self.persisted = {content_hash: split for content_hash, split in persisted.items() if split in managed_splits}
        self.assigned: dict[_Group, SplitName] = {}
        self.fixed: dict[SplitItem, SplitName] = {}
        self.conflicting: dict[str, Excluded] = {}
        self._unassigned: list[_Group] = []
        self._movable: set[_Group] = set()
        self._counts: Counter[tuple[str, SplitName]] = Counter()

    def items(self) -> list[SplitItem]:
        """Return the assigned images."""
        return [item for group in self.assigned for item in group.items] + list(self.fixed)

    def add(self, group: _Group) -> None:
        """Assign a group to its persisted split; a group without one is assigned by ``fill``."""
        splits = {self.persisted[item.content_hash] for item in group.items if item.content_hash in self.persisted}
        if not splits:
            self._unassigned.append(group)
        elif len(splits) == 1:
            self._assign(group, splits.pop())
        else:
            self._fix_conflicting(group)

    def fill(self) -> None:
        """Assign the remaining groups: first those of several images, largest first, then single images."""
        self._movable = set(self._unassigned)
        targets = self._target_counts()
        multiple = [group for group in self._unassigned if len(group.items) > 1]
        for group in sorted(multiple, key=lambda group: -len(group.items)):
            self._assign(group, min(self.managed_splits, key=lambda split: self._imbalance(group, split, targets)))
        singles: defaultdict[str, list[_Group]] = defaultdict(list)
        for group in self._unassigned:
            if len(group.items) == 1:
                singles[group.items[0].label].append(group)
        for label, groups in singles.items():
            self._fill_class(label, groups, targets)
        self._ensure_coverage(sorted({label for label, _ in self._counts}))

    def _assign(self, group: _Group, split: SplitName) -> None:
        previous = self.assigned.get(group)
        self.assigned[group] = split
        for label, count in group.labels.items():
            self._counts[label, split] += count
            if previous:
                self._counts[label, previous] -= count

    def _fix_conflicting(self, group: _Group) -> None:
        """Keep the existing images of a group where they are, and exclude its new ones."""
        existing = [item for item in group.items if item.content_hash in self.persisted]
        for item in existing:
            self.fixed[item] = self.persisted[item.content_hash]
            self._counts[item.label, self.fixed[item]] += 1
        for item in group.items:
            if item not in self.fixed:
                self.conflicting[item.path] = Excluded("split_conflict", existing[0].path, self.fixed[existing[0]])

    def _target_counts(self) -> dict[tuple[str, SplitName], int]:
        """Return the target number of images by class and split."""
        totals: Counter[str] = Counter()
        for (label, _), count in self._counts.items():
            totals[label] += count
        for group in self._unassigned:
            totals += group.labels
        holdouts = [split for split in self.managed_splits if split != "train"]
        targets: dict[tuple[str, SplitName], int] = {}
        for label, total in totals.items():
            holdout = min(max(1, round(HOLDOUT_FRACTION * total)), (total - 1) // len(holdouts))
            targets.update({(label, split): holdout for split in holdouts})
            targets[label, "train"] = total - holdout * len(holdouts)
        return targets

    def _imbalance(self, group: _Group, split: SplitName, targets: Mapping[tuple[str, SplitName], int]) -> float:
        """Return the increase of the squared deviation from the targets if the group is assigned to the split."""
        return sum(
            count * (2 * self._counts[label, split] + count - 2 * targets[label, split]) / max(1, targets[label, split])
            for label, count in group.labels.items()
        )

    def _fill_class(self, label: str, groups: Sequence[_Group], targets: Mapping[tuple[str, SplitName], int]) -> None:
        """Assign single images, ordered by content hash, to the splits below their target, the rest to train."""
        splits: list[SplitName] = ["train"] if not self._counts[label, "train"] else []
        for split in self.managed_splits:
            if split != "train":
                splits += [split] * max(0, targets[label, split] - self._counts[label, split])
        for group, split in zip(groups, splits + ["train"] * len(groups), strict=False):
            self._assign(group, split)

    def _ensure_coverage(self, labels: Sequence[str]) -> None:
        """Move new groups so that every class is in every split, as far as possible."""
        for label in labels:
            for split in self.managed_splits:
                if not self._counts[label, split]:
                    spare = [group for group in self._movable if label in group.labels and self._can_leave(group)]
                    if spare:
                        self._assign(min(spare, key=lambda group: (len(group.items), group.key)), split)

    def _can_leave(self, group: _Group) -> bool:
        return all(self._counts[label, self.assigned[group]] > count for label, count in group.labels.items())
