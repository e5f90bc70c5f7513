"""Heartbeats: signs of life that workers send to the driver.

The latest heartbeat of a search is a value in the key-value store of Ray's control service, where Ray Tune keeps its
registered functions (``ray.tune.registry``). Unlike an actor it needs no process, and unlike a file no shared folder.
Ray does not document the store, so only this module uses it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

NAMESPACE = "freezeline_heartbeat"
MIN_INTERVAL_S = 60.0  # between the heartbeats of a trial


class Heartbeat(NamedTuple):
    """A sign of life of a trial's worker; two heartbeats of a trial differ in ``sent_ns``, the worker's Unix time."""

    trial_uid: str
    sent_ns: int


class HeartbeatSender:
    """Sends a heartbeat when it is called, unless the trial's latest one is less than ``MIN_INTERVAL_S`` old."""

    def __init__(self, search_root: Path, trial_uid: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._search_root = search_root
        self._trial_uid = trial_uid
        self._clock = clock
        self._sent_s: float | None = None

    def __call__(self) -> None:
        """Send a heartbeat if one is due."""
        now_s = self._clock()
        if self._sent_s is None or now_s - self._sent_s >= MIN_INTERVAL_S:
            self._sent_s = now_s
            send_heartbeat(self._search_root, Heartbeat(self._trial_uid, time.time_ns()))


def send_heartbeat(search_root: Path, heartbeat: Heartbeat) -> None:
    """Replace the latest heartbeat of the search in this folder; an error of Ray is ignored."""
    from ray.exceptions import RayError
    from ray.experimental.internal_kv import _internal_kv_put

    with contextlib.suppress(RayError):  # training continues; without a control service, Ray itself ends the worker
        _internal_kv_put(str(search_root), f"{heartbeat.trial_uid} {heartbeat.sent_ns}", namespace=NAMESPACE)


def last_heartbeat(search_root: Path) -> Heartbeat | None:
    """Return the latest heartbeat of the search in this folder; None if there is none or Ray does not respond."""
    from ray.exceptions import RayError
    from ray.experimental.internal_kv import _internal_kv_get

    try:
        value: bytes | None = _internal_kv_get(str(search_root), namespace=NAMESPACE)
    except RayError:
        return None
    if value is None:
        return None
    trial_uid, sent_ns = value.decode().split()
    return Heartbeat(trial_uid, int(sent_ns))
