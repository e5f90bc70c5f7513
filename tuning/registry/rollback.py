"""Rollback: the alias moves back to the previous champion."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from data.errors import TrackingError
from tuning.common.promotion_types import ChampionChange
from tuning.registry.candidate_store import load_candidate_of_version
from tuning.registry.champion_change import change_champion, decide_until_unchanged, promotion_lock
from tuning.registry.client import ModelRegistry, RegistryState
from tuning.registry.promotion import verify_loads

if TYPE_CHECKING:
    from mlflow import MlflowClient


def rollback(client: MlflowClient, name: str, reason: str) -> ChampionChange:
    """Move the alias back to the previous champion; return the recorded change.

    Raises:
        TrackingError: the model does not exist, has no champion, or has no previous champion.
        ModelLoadError: the previous champion failed the smoke test; the alias was not moved.
    """
    registry = ModelRegistry(client, name)
    registry.check_exists()
    with promotion_lock(name):
        champion = registry.state().champion
        if champion is None:
            raise TrackingError(f"rollback needs a champion, but {name} has none; promote a version first")
        return decide_until_unchanged(registry, partial(_roll_back, registry, champion, reason))


def _roll_back(registry: ModelRegistry, champion: int, reason: str, before: RegistryState) -> ChampionChange | None:
    """Roll back from ``champion``; return None if the history was changed by others at the same time."""
    if before.champion != champion:
        raise TrackingError(
            f"rollback started from champion version {champion} of {registry.name}, but the alias moved to "
            f"{before.champion} in the meantime; see freezeline champions {registry.name} and run "
            "rollback again"
        )
    version = _previous_champion(before.changes, champion)
    if version is None:
        raise TrackingError(
            f"rollback needs a previous champion, but version {champion} is the first champion of {registry.name}; "
            "promote another version with --force REASON"
        )
    verify_loads(registry, load_candidate_of_version(registry.client, registry.name, version), version)
    return change_champion(registry, before, version, "rolled back", reason)


def _previous_champion(changes: Sequence[ChampionChange], current: int) -> int | None:
    """Return the champion before ``current``, the version that has the alias now; None if there was none.

    A rollback removes the version that it rolled back from.
    """
    versions: list[int] = []
    for change in changes:
        if change.kind == "rolled back":
            while versions and versions[-1] != change.version:
                versions.pop()
        if not versions or versions[-1] != change.version:
            versions.append(change.version)
    if versions and versions[-1] == current:
        versions.pop()
    return versions[-1] if versions else None
