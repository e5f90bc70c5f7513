"""Cores within a container's CPU quota."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from data import machine
from data.machine import available_cores, cpu_quotas

CASES = {
    "no limit": ("0::/\n", {"cpu.max": "max 100000\n"}, []),
    "docker --cpus 1.5, version 2": ("0::/\n", {"cpu.max": "150000 100000\n"}, [1.5]),
    "kubernetes, a limit of a parent": (
        "0::/pods/a/b\n",
        {"pods/a/b/cpu.max": "max 100000", "pods/a/cpu.max": "250000 100000"},
        [2.5],
    ),
    "version 1": (
        "4:memory:/x\n3:cpu,cpuacct:/x\n",
        {"cpu,cpuacct/x/cpu.cfs_quota_us": "50000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"},
        [0.5],
    ),
    "version 1, the path of the host": (
        "3:cpu,cpuacct:/docker/abc\n",
        {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"},
        [3.0],
    ),
    "version 1, no limit": ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, []),
    "hybrid": ("1:cpu:/\n0::/u\n", {"unified/u/cpu.max": "400000 100000"}, [4.0]),
    "something else": ("something\n", {"cpu.max": "text"}, []),
}


@pytest.fixture(autouse=True)
def not_cached() -> Iterator[None]:
    available_cores.cache_clear()
    yield
    available_cores.cache_clear()


@pytest.mark.parametrize(("own", "files", "quotas"), CASES.values(), ids=CASES)
def test_the_quota_of_control_groups_is_read(
    own: str, files: Mapping[str, str], quotas: list[float], tmp_path: Path
) -> None:
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    assert sorted(set(cpu_quotas(tmp_path / "groups", tmp_path / "own"))) == quotas


@pytest.mark.parametrize(("quotas", "cores"), [([], 8), ([2.5, 4.0], 2), ([0.5], 1), ([64.0], 8)])
def test_cores_are_those_of_the_affinity_within_the_quota(
    quotas: list[float], cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(machine, "cpu_quotas", lambda: quotas)
    assert available_cores() == cores
