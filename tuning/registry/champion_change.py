"""Changes of the champion: one after another on a machine, and decided again if another machine was faster.

On one machine a file lock puts the changes in order. MLflow's registry has neither a lock nor a compare-and-swap, so
between machines a change is decided without a lock and made under a *claim*, a tag of the registered model. Of two
processes that claim at the same time, at least one sees the other's claim, withdraws its own and decides again.
docs/registry.md has the details and what is not prevented.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from filelock import FileLock

from data.errors import TrackingError
from data.home import state_dir
from tuning.common.promotion_types import ChampionChange, ChangeKind
from tuning.common.redaction import without_credentials
from tuning.registry.client import CHAMPION, ModelRegistry, RegistryState
from tuning.tracking.connection import absolute_uri, tracking_uri

MAX_ATTEMPTS = 20
PAUSE_S = 0.5  # longest pause before the state is read again; doubled after each attempt, up to MAX_PAUSE_S
MAX_PAUSE_S = 5.0
CLAIM_TIMEOUT_S = 60.0  # a claim lasts for about five requests

R = TypeVar("R")


def promotion_lock(name: str) -> FileLock:
    """Return the lock of this machine's promotions and rollbacks of a registered model, as a context manager."""
    uri = without_credentials(absolute_uri(tracking_uri()))
    digest = hashlib.blake2b(f"{uri}\n{name}".encode(), digest_size=16).hexdigest()
    folder = state_dir() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"promotion-{digest}.lock")


def decide_until_unchanged(registry: ModelRegistry, decide: Callable[[RegistryState], R | None]) -> R:
    """Call ``decide`` with the registry's state until it returns a result.

    It returns None if the state changed before ``change_champion`` could apply the decision.

    Raises:
        TrackingError: the state changed ``MAX_ATTEMPTS`` times.
    """
    for attempt in range(MAX_ATTEMPTS):
        result = decide(_wait_for_claims(registry))
        if result is not None:
            return result
        _pause(min(PAUSE_S * 2**attempt, MAX_PAUSE_S))
    raise TrackingError(
        f"the champion of {registry.name} must stay the same while a promotion or a rollback is decided, but other "
        f"processes or people changed it {MAX_ATTEMPTS} times; run the command again when they have finished"
    )


def change_champion(
    registry: ModelRegistry, before: RegistryState, version: int, kind: ChangeKind, reason: str
) -> ChampionChange | None:
    """Move the champion alias and append the change to the history.

    Return None if the champion or the history was changed by others since ``before``, the state of the decision. If
    ``version`` has the alias already, only the history is completed.
    """
    last = before.changes[-1] if before.changes else None
    last_version = last.version if last else None
    change = ChampionChange(
        number=last.number + 1 if last else 1,
        version=version,
        previous=last_version if before.champion == version else before.champion,
        kind=kind,
        reason=reason,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    with registry.claim() as claim:
        if registry.state() != before._replace(claims=frozenset({claim})):
            return None
        if before.champion != version:
            registry.set_alias(CHAMPION, version)
        change = registry.append_history(change)
        after = registry.state()
    is_unchanged = (after.champion, after.changes) == (version, (*before.changes, change))
    return change if is_unchanged else None


def _wait_for_claims(registry: ModelRegistry) -> RegistryState:
    """Return the registry's state without claims; release claims that stay for ``CLAIM_TIMEOUT_S``."""
    state = registry.state()
    claims, since_s = state.claims, time.monotonic()
    while state.claims:
        if time.monotonic() - since_s > CLAIM_TIMEOUT_S:
            for claim in claims & state.claims:
                registry.release(claim)
            claims, since_s = state.claims, time.monotonic()
        _pause(PAUSE_S)
        state = registry.state()
    return state


def _pause(max_s: float) -> None:
    """Sleep for a random time, so that two processes do not collide again."""
    time.sleep(random.uniform(0, max_s))  # noqa: S311  # not security
