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

SHARE = 0.15  # of a class's pictures for validation, and as many for the test


class Shut(NamedTuple):
    """Why a picture is in no split.

    Attributes:
        why: ``leak``: it is in a given training or validation split and tied to a picture in a later one;
            ``torn``: it is new and tied to older pictures on two sides.
        other: path of such a picture.
        split: where that one is.
    """

    why: Literal["leak", "torn"]
    other: str
    split: SplitName


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """A picture to be placed: where it lies, what it shows, and what the user has said about it."""

    path: str
    digest: str
    label: str
    given: SplitName | None = None
    group: str | None = None


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where every picture belongs.

    Attributes:
        splits: by path.
        shut: by path, pictures that are in no split.
        chosen: by digest, what was decided here and is to be remembered.
    """

    splits: dict[str, SplitName]
    shut: dict[str, Shut]
    chosen: dict[str, SplitName]


def place(
    items: Sequence[Item],
    ties: Iterable[Sequence[str]] = (),
    remembered: Mapping[str, SplitName] | None = None,
    keep_leaks: bool = False,
) -> Placement:
    """Decide for each picture.

    A split that the user gave is kept; one that is missing beside it is cut from the given training pictures,
    and a picture without a split is then one of those. ``ties`` holds digests that are nearly the same,
    ``remembered`` the ``chosen`` of earlier calls. With ``keep_leaks``, leaks stay where the user put them.
    """
    given = {item.given for item in items if item.given}
    ours = tuple(split for split in SPLITS if split == "train" or split not in given)
    placement = Placement({}, {}, {})
    pool = _Pool(ours, remembered or {})
    for unit in _units(items, ties):
        if unit.sides - {"train"} or len(ours) == 1:
            _keep(unit, placement, keep_leaks)
        else:
            pool.add(unit)
    pool.fill()
    for unit, split in pool.placed.items():
        placement.splits.update((item.path, split) for item in unit.items)
    for item, side in pool.settled.items():
        placement.splits[item.path] = side
    placement.shut.update(pool.torn)
    placement.chosen.update((item.digest, placement.splits[item.path]) for item in pool.items())
    return placement


@dataclasses.dataclass(frozen=True, eq=False)
class _Unit:
    """Pictures that are tied together."""

    items: tuple[Item, ...]
    key: str  # the least digest: decides wherever chance would
    labels: Counter[str]
    sides: set[SplitName]  # where the user has put them


def _units(items: Sequence[Item], ties: Iterable[Sequence[str]]) -> list[_Unit]:
    from scipy.cluster.hierarchy import DisjointSet

    known = {item.digest for item in items}
    tied = DisjointSet(("digest", digest) for digest in known)
    for group in ties:
        digests = [digest for digest in group if digest in known]
        for digest in digests[1:]:
            tied.merge(("digest", digests[0]), ("digest", digest))
    for item in items:
        if item.group:
            tied.add(("group", item.group))
            tied.merge(("digest", item.digest), ("group", item.group))
    together: defaultdict[tuple[str, str], list[Item]] = defaultdict(list)
    for item in items:
        together[tied["digest", item.digest]].append(item)
    units = [
        _Unit(
            items=tuple(members),
            key=min(item.digest for item in members),
            labels=Counter(item.label for item in members),
            sides={item.given for item in members if item.given},
        )
        for members in together.values()
    ]
    return sorted(units, key=lambda unit: unit.key)


def _keep(unit: _Unit, placement: Placement, keep_leaks: bool) -> None:
    """Leave a unit where the user put it; where that is in two splits, only the later one's pictures count."""
    last = max(unit.sides or {SPLITS[0]}, key=SPLITS.index)
    for item in unit.items:
        if item.given in (None, last) or keep_leaks:
            placement.splits[item.path] = item.given or last
        else:
            other = next(other for other in unit.items if other.given == last)
            placement.shut[item.path] = Shut("leak", other.path, last)


class _Pool:
    """The units that are ours to place among the splits ``ours``."""

    def __init__(self, ours: Sequence[SplitName], remembered: Mapping[str, SplitName]) -> None:
        self.ours = ours
        self.remembered = {digest: split for digest, split in remembered.items() if split in ours}
        self.placed: dict[_Unit, SplitName] = {}
        self.settled: dict[Item, SplitName] = {}
        self.torn: dict[str, Shut] = {}
        self._open: list[_Unit] = []
        self._moved_in: set[_Unit] = set()
        self._counts: Counter[tuple[str, SplitName]] = Counter()

    def items(self) -> list[Item]:
        """Return the pictures that have been placed."""
        return [item for unit in self.placed for item in unit.items] + list(self.settled)

    def add(self, unit: _Unit) -> None:
        """Settle what an earlier call has decided; keep the rest to be placed by ``fill``."""
        sides = {self.remembered[item.digest] for item in unit.items if item.digest in self.remembered}
        if not sides:
            self._open.append(unit)
        elif len(sides) == 1:
            self._put(unit, sides.pop())
        else:
            self._settle(unit)

    def fill(self) -> None:
        """Place the open units: large ones where they fit best, single pictures where some are still wanted."""
        self._moved_in = set(self._open)
        wanted = self._wanted()
        for unit in sorted((unit for unit in self._open if len(unit.items) > 1), key=lambda unit: -len(unit.items)):
            self._put(unit, min(self.ours, key=lambda split: self._misfit(unit, split, wanted)))
        singles: defaultdict[str, list[_Unit]] = defaultdict(list)
        for unit in self._open:
            if len(unit.items) == 1:
                singles[unit.items[0].label].append(unit)
        for label, units in singles.items():
            self._fill_class(label, units, wanted)
        self._mend(sorted({label for label, _ in self._counts}))

    def _put(self, unit: _Unit, split: SplitName) -> None:
        before = self.placed.get(unit)
        self.placed[unit] = split
        for label, count in unit.labels.items():
            self._counts[label, split] += count
            if before:
                self._counts[label, before] -= count

    def _settle(self, unit: _Unit) -> None:
        old = [item for item in unit.items if item.digest in self.remembered]
        for item in old:
            self.settled[item] = self.remembered[item.digest]
            self._counts[item.label, self.settled[item]] += 1
        for item in unit.items:
            if item not in self.settled:
                self.torn[item.path] = Shut("torn", old[0].path, self.settled[old[0]])

    def _wanted(self) -> dict[tuple[str, SplitName], int]:
        """Return how many pictures of each class are to be in each split in the end."""
        totals: Counter[str] = Counter()
        for (label, _), count in self._counts.items():
            totals[label] += count
        for unit in self._open:
            totals += unit.labels
        others = [split for split in self.ours if split != "train"]
        wanted: dict[tuple[str, SplitName], int] = {}
        for label, total in totals.items():
            share = min(max(1, round(SHARE * total)), (total - 1) // len(others))
            wanted.update({(label, split): share for split in others})
            wanted[label, "train"] = total - share * len(others)
        return wanted

    def _misfit(self, unit: _Unit, split: SplitName, wanted: Mapping[tuple[str, SplitName], int]) -> float:
        """Return how much further from what is wanted the unit would take the split; less is better."""
        return sum(
            count * (2 * self._counts[label, split] + count - 2 * wanted[label, split]) / max(1, wanted[label, split])
            for label, count in unit.labels.items()
        )

    def _fill_class(self, label: str, units: Sequence[_Unit], wanted: Mapping[tuple[str, SplitName], int]) -> None:
        """Give single pictures, in the order of their digests, to the splits that want more, and training the rest."""
        names: list[SplitName] = ["train"] if not self._counts[label, "train"] else []
        for split in self.ours:
            if split != "train":
                names += [split] * max(0, wanted[label, split] - self._counts[label, split])
        for unit, split in zip(units, names + ["train"] * len(units), strict=False):
            self._put(unit, split)

    def _mend(self, labels: Sequence[str]) -> None:
        """Move new units until every class is in every split, as far as that can be had."""
        for label in labels:
            for split in self.ours:
                if not self._counts[label, split]:
                    spare = [unit for unit in self._moved_in if label in unit.labels and self._can_leave(unit)]
                    if spare:
                        self._put(min(spare, key=lambda unit: (len(unit.items), unit.key)), split)

    def _can_leave(self, unit: _Unit) -> bool:
        return all(self._counts[label, self.placed[unit]] > count for label, count in unit.labels.items())
