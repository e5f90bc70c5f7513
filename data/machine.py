"""CPU cores that this process may use: those of its affinity, within the quota of its control groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")  # lines "number:controllers:path"; version 2 has no controllers


@cache
def available_cores() -> int:
    """Return the number of CPU cores that this process may use, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(int(quota) for quota in cpu_quotas())]))


def cpu_quotas(root: Path = CGROUPS, own: Path = OWN_CGROUPS) -> list[float]:
    """Return the CPU quotas, in cores, of the control groups (version 1 and 2) of this process and their parents.

    A container sees its own group as the root, or the path on the host, which does not exist: the root is read too.
    """
    quotas = []
    for folder in _folders(root, own):
        try:
            quota, period = _quota_and_period(folder)
        except (OSError, ValueError):
            continue  # the folder or the controller does not exist, or there is no limit ("max")
        if quota > 0 and period > 0:
            quotas.append(quota / period)
    return quotas


def _folders(root: Path, own: Path) -> Iterator[Path]:
    """Yield the folders of this process's control groups and of all their parents."""
    try:
        lines = own.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = PurePosixPath("/", path.lstrip("/"))
        for base in (root / controllers, root / "cpu") if controllers else (root, root / "unified"):
            for part in (group, *group.parents):
                yield base / part.relative_to("/")


def _quota_and_period(folder: Path) -> tuple[int, int]:
    if (folder / "cpu.max").exists():
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota), int(period)
    return int((folder / "cpu.cfs_quota_us").read_text()), int((folder / "cpu.cfs_period_us").read_text())
