"""The folder of all state that outlives a clone."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def state_dir() -> Path:
    """Return the folder of all state that outlives a clone: FREEZELINE_HOME, or the user's cache directory."""
    chosen = os.environ.get("FREEZELINE_HOME")
    return Path(chosen).expanduser().resolve() if chosen else platformdirs.user_cache_path("freezeline")
