"""Which picture trains, which one validates, which one tests: decided by what it shows, not by its name.

A picture's place follows from the digest of its pixels, so that renaming, moving or reordering files moves none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from data.sources import SplitName
from data.sources.base import SPLITS
from data.values import Value

SHARE = 0.15  # of a class's pictures for validation, and as many for the test


class Placed(Value):
    """A picture to be placed, and where the user has put it already, if anywhere."""

    digest: str
    label: str
    given: SplitName | None = None


def assign(pictures: Iterable[Placed]) -> dict[str, SplitName]:
    """Return the split of each digest.

    Where the user made splits they are kept, and a missing val or test is taken from the given training pictures.
    A digest that lies in two given splits belongs to the later one of train, val, test: it is left out of training.
    """
    placed: dict[str, SplitName] = {}
    by_class: defaultdict[str, set[str]] = defaultdict(set)
    given: set[SplitName] = set()
    for picture in pictures:
        if picture.given:
            given.add(picture.given)
            placed[picture.digest] = max(placed.get(picture.digest, "train"), picture.given, key=SPLITS.index)
        by_class[picture.label].add(picture.digest)
    missing = tuple(split for split in SPLITS[1:] if split not in given)
    for digests in by_class.values():
        free = {digest for digest in digests if placed.get(digest, "train") == "train"} if missing else set()
        placed |= _cut(sorted(free), missing)
    return placed


def _cut(digests: list[str], missing: tuple[SplitName, ...]) -> Mapping[str, SplitName]:
    """Give each missing split its share of one class, at least one picture, and training the rest.

    Digests are as good as random numbers, and their order is the same wherever the files lie.
    """
    share = max(1, round(SHARE * len(digests)))
    names: list[SplitName] = [split for split in missing for _ in range(share)]
    names = names[: max(0, len(digests) - 1)]
    return dict(zip(digests, names + ["train"] * (len(digests) - len(names)), strict=True))
