"""Code version, interpreter, hardware and packages of a search."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path

from data.machine import available_cores
from models.profiling.hardware import hardware
from tuning.common.names import GIT_COMMIT_TAG, GIT_DIRTY_TAG

REPOSITORY = Path(__file__).resolve().parents[2]


def code_version() -> dict[str, str]:
    """Return the git commit of this project and whether the working tree is dirty; empty outside git."""
    commit = _git("rev-parse", "HEAD")
    return {GIT_COMMIT_TAG: commit, GIT_DIRTY_TAG: str(bool(_git("status", "--porcelain"))).lower()} if commit else {}


def _git(*arguments: str) -> str:
    if not (REPOSITORY / ".git").exists():  # an installed package may lie in a repository of the user
        return ""
    try:
        result = subprocess.run(  # noqa: S603
            ["git", *arguments],  # noqa: S607
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def environment_info() -> dict[str, object]:
    """Return the interpreter, the hardware and the version of every installed package."""
    import psutil
    import torch

    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "hardware": {
            "processor": hardware(),
            "cores": available_cores(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "accelerators": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
            "host": platform.node(),
        },
        "packages": {
            distribution.metadata["Name"]: distribution.version for distribution in importlib.metadata.distributions()
        },
    }
