"""Who was champion after whom, and why: a list of events, from which everything else follows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from tuning.common.promotion_types import ChampionChange


def utc_now() -> str:
    """Return the time for an event."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def champion_chain(events: Sequence[ChampionChange]) -> list[int]:
    """Return the champions that a rollback goes back along, oldest first: those rolled back from are no part of it."""
    versions: list[int] = []
    for event in events:
        if event.kind == "rolled back":
            while versions and versions[-1] != event.version:
                versions.pop()
        if not versions or versions[-1] != event.version:
            versions.append(event.version)
    return versions


def previous_champion(events: Sequence[ChampionChange], current: int) -> int | None:
    """Return the champion before ``holder``, who has the alias now; None if there was none."""
    versions = champion_chain(events)
    if versions and versions[-1] == current:
        versions.pop()
    return versions[-1] if versions else None
