"""Which picture trains, which one validates, which one tests: decided by what it shows, not by its name.

In this order: (1) pictures that are tied together (the same pixels, nearly the same, or of one group) are on one
side; (2) a picture never moves from where an earlier call has put it; (3) every class has a picture in every
split; (4) 70/15/15 by class. What no rule decides follows from the digests of the pixels, so that renaming,
moving or reordering files changes nothing.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from data.sources.base import SPLITS, SplitName

HOLDOUT_FRACTION = 0.15  # of a class's pictures for validation, and as many for the test


class Excluded(NamedTuple):
    """Why a picture is in no split.

    Attributes:
        why: ``leak``: it is in a given training or validation split and tied to a picture in a later one;
            ``torn``: it is new and tied to older pictures on two sides.
        other: path of such a picture.
        split: where that one is.
    """

    reason: Literal["leak", "split_conflict"]
    other: str
    split: SplitName


@dataclasses.dataclass(frozen=True, slots=True)
class SplitItem:
    """A picture to be placed: where it lies, what it shows, and what the user has said about it."""

    path: str
    content_hash: str
    label: str
    given_split: SplitName | None = None
    group: str | None = None


@dataclasses.dataclass(frozen=True)
class SplitAssignment:
    """Where every picture belongs.

    Attributes:
        splits: by path.
        shut: by path, pictures that are in no split.
        chosen: by digest, what was decided here and is to be remembered.
    """

    splits: dict[str, SplitName]
    excluded: dict[str, Excluded]
    new_assignments: dict[str, SplitName]


def assign_splits(
    items: Sequence[SplitItem],
    near_duplicates: Iterable[Sequence[str]] = (),
    persisted: Mapping[str, SplitName] | None = None,
    keep_leaks: bool = False,
) -> SplitAssignment:
    """Decide for each picture.

    A split that the user gave is kept; one that is missing beside it is cut from the given training pictures,
    and a picture without a split is then one of those. ``ties`` holds digests that are nearly the same,
    ``get_cached`` the ``chosen`` of earlier calls. With ``keep_leaks``, leaks stay where the user put them.
    """
    given = {item.given_split for item in items if item.given_split}
    ours = tuple(split for split in SPLITS if split == "train" or split not in given)
    placement = SplitAssignment({}, {}, {})
    pool = _SplitBuilder(ours, persisted or {})
    for unit in _groups(items, near_duplicates):
        if unit.given_splits - {"train"} or len(ours) == 1:
            _keep_given_splits(unit, placement, keep_leaks)
        else:
            pool.add(unit)
    pool.fill()
    for unit, split in pool.placed.items():
        placement.splits.update((item.path, split) for item in unit.items)
    for item, side in pool.fixed.items():
        placement.splits[item.path] = side
    placement.excluded.update(pool.conflicting)
    placement.new_assignments.update((item.content_hash, placement.splits[item.path]) for item in pool.items())
    return placement


@dataclasses.dataclass(frozen=True, eq=False)
class _Group:
    """Pictures that are tied together."""

    items: tuple[SplitItem, ...]
    key: str  # the least digest: decides wherever chance would
    labels: Counter[str]
    given_splits: set[SplitName]  # where the user has put them


def _groups(items: Sequence[SplitItem], near_duplicates: Iterable[Sequence[str]]) -> list[_Group]:
    from scipy.cluster.hierarchy import DisjointSet

    known = {item.content_hash for item in items}
    tied = DisjointSet(("digest", digest) for digest in known)
    for group in near_duplicates:
        digests = [digest for digest in group if digest in known]
        for digest in digests[1:]:
            tied.merge(("digest", digests[0]), ("digest", digest))
    for item in items:
        if item.group:
            tied.add(("group", item.group))
            tied.merge(("digest", item.content_hash), ("group", item.group))
    together: defaultdict[tuple[str, str], list[SplitItem]] = defaultdict(list)
    for item in items:
        together[tied["digest", item.content_hash]].append(item)
    units = [
        _Group(
            items=tuple(members),
            key=min(item.content_hash for item in members),
            labels=Counter(item.label for item in members),
            given_splits={item.given_split for item in members if item.given_split},
        )
        for members in together.values()
    ]
    return sorted(units, key=lambda unit: unit.key)


def _keep_given_splits(unit: _Group, placement: SplitAssignment, keep_leaks: bool) -> None:
    """Leave a unit where the user put it; where that is in two splits, only the later one's pictures count."""
    last = max(unit.given_splits or {SPLITS[0]}, key=SPLITS.index)
    for item in unit.items:
        if item.given_split in (None, last) or keep_leaks:
            placement.splits[item.path] = item.given_split or last
        else:
            other = next(other for other in unit.items if other.given_split == last)
            placement.excluded[item.path] = Excluded("leak", other.path, last)


class _SplitBuilder:
    """The units that are ours to place among the splits ``ours``."""

    def __init__(self, ours: Sequence[SplitName], remembered: Mapping[str, SplitName]) -> None:
        self.managed_splits = ours
        self.persisted = {digest: split for digest, split in remembered.items() if split in ours}
        self.placed: dict[_Group, SplitName] = {}
        self.fixed: dict[SplitItem, SplitName] = {}
        self.conflicting: dict[str, Excluded] = {}
        self._open: list[_Group] = []
        self._moved_in: set[_Group] = set()
        self._counts: Counter[tuple[str, SplitName]] = Counter()

    def items(self) -> list[SplitItem]:
        """Return the pictures that have been placed."""
        return [item for unit in self.placed for item in unit.items] + list(self.fixed)

    def add(self, unit: _Group) -> None:
        """Settle what an earlier call has decided; keep the rest to be placed by ``fill``."""
        sides = {self.persisted[item.content_hash] for item in unit.items if item.content_hash in self.persisted}
        if not sides:
            self._open.append(unit)
        elif len(sides) == 1:
            self._assign(unit, sides.pop())
        else:
            self._fix_conflicting(unit)

    def fill(self) -> None:
        """Place the open units: large ones where they fit best, single pictures where some are still wanted."""
        self._moved_in = set(self._open)
        wanted = self._target_counts()
        for unit in sorted((unit for unit in self._open if len(unit.items) > 1), key=lambda unit: -len(unit.items)):
            self._assign(unit, min(self.managed_splits, key=lambda split: self._imbalance(unit, split, wanted)))
        singles: defaultdict[str, list[_Group]] = defaultdict(list)
        for unit in self._open:
            if len(unit.items) == 1:
                singles[unit.items[0].label].append(unit)
        for label, units in singles.items():
            self._fill_class(label, units, wanted)
        self._ensure_coverage(sorted({label for label, _ in self._counts}))

    def _assign(self, unit: _Group, split: SplitName) -> None:
        before = self.placed.get(unit)
        self.placed[unit] = split
        for label, count in unit.labels.items():
            self._counts[label, split] += count
            if before:
                self._counts[label, before] -= count

    def _fix_conflicting(self, unit: _Group) -> None:
        old = [item for item in unit.items if item.content_hash in self.persisted]
        for item in old:
            self.fixed[item] = self.persisted[item.content_hash]
            self._counts[item.label, self.fixed[item]] += 1
        for item in unit.items:
            if item not in self.fixed:
                self.conflicting[item.path] = Excluded("split_conflict", old[0].path, self.fixed[old[0]])

    def _target_counts(self) -> dict[tuple[str, SplitName], int]:
        """Return how many pictures of each class are to be in each split in the end."""
        totals: Counter[str] = Counter()
        for (label, _), count in self._counts.items():
            totals[label] += count
        for unit in self._open:
            totals += unit.labels
        others = [split for split in self.managed_splits if split != "train"]
        wanted: dict[tuple[str, SplitName], int] = {}
        for label, total in totals.items():
            share = min(max(1, round(HOLDOUT_FRACTION * total)), (total - 1) // len(others))
            wanted.update({(label, split): share for split in others})
            wanted[label, "train"] = total - share * len(others)
        return wanted

    def _imbalance(self, unit: _Group, split: SplitName, wanted: Mapping[tuple[str, SplitName], int]) -> float:
        """Return how much further from what is wanted the unit would take the split; less is better."""
        return sum(
            count * (2 * self._counts[label, split] + count - 2 * wanted[label, split]) / max(1, wanted[label, split])
            for label, count in unit.labels.items()
        )

    def _fill_class(self, label: str, units: Sequence[_Group], wanted: Mapping[tuple[str, SplitName], int]) -> None:
        """Give single pictures, in the order of their digests, to the splits that want more, and training the rest."""
        names: list[SplitName] = ["train"] if not self._counts[label, "train"] else []
        for split in self.managed_splits:
            if split != "train":
                names += [split] * max(0, wanted[label, split] - self._counts[label, split])
        for unit, split in zip(units, names + ["train"] * len(units), strict=False):
            self._assign(unit, split)

    def _ensure_coverage(self, labels: Sequence[str]) -> None:
        """Move new units until every class is in every split, as far as that can be had."""
        for label in labels:
            for split in self.managed_splits:
                if not self._counts[label, split]:
                    spare = [unit for unit in self._moved_in if label in unit.labels and self._can_leave(unit)]
                    if spare:
                        self._assign(min(spare, key=lambda unit: (len(unit.items), unit.key)), split)

    def _can_leave(self, unit: _Group) -> bool:
        return all(self._counts[label, self.placed[unit]] > count for label, count in unit.labels.items())
