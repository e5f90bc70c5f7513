"""The state folder, which is independent of the clone of the repository."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def state_dir() -> Path:
    """Return the state folder: FREEZELINE_HOME, or by default a folder in the user's cache directory."""
    configured = os.environ.get("FREEZELINE_HOME")
    return Path(configured).expanduser().resolve() if configured else platformdirs.user_cache_path("freezeline")
