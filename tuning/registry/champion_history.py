"""Champion history as an append-only event log; the current and the previous champion follow from it."""

from __future__ import annotations

from collections.abc import Sequence

from tuning.common.promotion_types import ChampionChange


def champion_chain(changes: Sequence[ChampionChange]) -> list[int]:
    """Return the chain of champions that rollbacks follow, oldest first; the last one is the current champion.

    A rollback removes the version that it rolled back from.
    """
    versions: list[int] = []
    for change in changes:
        if change.kind == "rolled back":
            while versions and versions[-1] != change.version:
                versions.pop()
        if not versions or versions[-1] != change.version:
            versions.append(change.version)
    return versions


def previous_champion(changes: Sequence[ChampionChange], current: int) -> int | None:
    """Return the champion before ``current``, the version that has the alias now; None if there was none."""
    versions = champion_chain(changes)
    if versions and versions[-1] == current:
        versions.pop()
    return versions[-1] if versions else None
