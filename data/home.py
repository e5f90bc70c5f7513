"""The state folder, which is independent of the clone of the repository."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs
from filelock import FileLock


def state_dir() -> Path:
    """Return the state folder: FREEZELINE_HOME, or by default a folder in the user's cache directory."""
    configured = os.environ.get("FREEZELINE_HOME")
    return Path(configured).expanduser().resolve() if configured else platformdirs.user_cache_path("freezeline")


def migrated_folder(name: str, former_name: str) -> Path:
    """Return the folder ``name`` in the state folder; an earlier version's folder ``former_name`` is renamed first."""
    folder, former = state_dir() / name, state_dir() / former_name
    if former.is_dir() and not folder.exists():
        with FileLock(folder.with_suffix(".lock")):
            if former.is_dir() and not folder.exists():
                former.rename(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
