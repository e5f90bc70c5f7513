"""Which things belong together when some of them are tied to others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Ties(Generic[T]):
    """Things that are tied together, directly or through others."""

    def __init__(self, groups: Iterable[Sequence[T]] = ()) -> None:
        self._above: dict[T, T] = {}
        for group in groups:
            for other in group:
                self.tie(group[0], other)

    def tie(self, one: T, other: T) -> None:
        """Tie two things, and with them all that either is tied to."""
        self._above[self.head(other)] = self.head(one)

    def head(self, thing: T) -> T:
        """Return the same one of them for all things that are tied together; a thing that is new is its own."""
        path = []
        while (above := self._above.setdefault(thing, thing)) != thing:
            path.append(thing)
            thing = above
        for below in path:
            self._above[below] = thing
        return thing

    def groups(self) -> list[list[T]]:
        """Return the things by group, each thing in one, in the order in which they were first named."""
        found: defaultdict[T, list[T]] = defaultdict(list)
        for thing in list(self._above):
            found[self.head(thing)].append(thing)
        return list(found.values())
