"""The folder of all state that outlives a clone."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs
from filelock import FileLock


def state_dir() -> Path:
    """Return the folder of all state that outlives a clone: FREEZELINE_HOME, or the user's cache directory."""
    chosen = os.environ.get("FREEZELINE_HOME")
    return Path(chosen).expanduser().resolve() if chosen else platformdirs.user_cache_path("freezeline")


def migrated_folder(name: str, former_name: str) -> Path:
    """Return the folder ``name`` of the state; contents that an earlier version kept as ``former_name`` move there."""
    folder, former = state_dir() / name, state_dir() / former_name
    if former.is_dir() and not folder.exists():
        with FileLock(folder.with_suffix(".lock")):
            if former.is_dir() and not folder.exists():
                former.rename(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
