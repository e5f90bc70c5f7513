"""Rollback: the alias moves back to the previous champion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data.errors import TrackingError
from tuning.common.promotion_types import ChampionChange
from tuning.registry.candidate_store import load_candidate_of_version
from tuning.registry.champion_history import previous_champion
from tuning.registry.client import ModelRegistry
from tuning.registry.promotion import CHAMPION, record_change, verify_loads
from tuning.registry.promotion_queue import Turn

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
    current = registry.version_of_alias(CHAMPION)
    if current is None:
        raise TrackingError(f"rollback needs a champion, but {name} has none; promote a version first")
    version = _previous_champion(registry, current)
    with Turn.of_known(registry, version) as turn:
        verify_loads(registry, load_candidate_of_version(client, name, version), version)
        turn.wait()
        new_champion = registry.version_of_alias(CHAMPION)
        if new_champion != current:
            raise TrackingError(
                f"rollback started from champion version {current} of {name}, but the alias moved to {new_champion} "
                f"in the meantime; see python -m tuning champions --name {name} and run rollback again"
            )
        turn.check()
        registry.set_alias(CHAMPION, version)
        return record_change(registry, version, current, "rolled back", reason)


def _previous_champion(registry: ModelRegistry, current: int) -> int:
    version = previous_champion(registry.history(), current)
    if version is None:
        raise TrackingError(
            f"rollback needs a previous champion, but version {current} is the first champion of {registry.name}; "
            "promote another version with --force REASON"
        )
    return version
