"""The state folder and the cache folder, which are independent of the clone of the repository."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import platformdirs

UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


def state_dir() -> Path:
    """Return the state folder: FREEZELINE_HOME, or by default a folder in the user's cache directory."""
    configured = os.environ.get("FREEZELINE_HOME")
    return Path(configured).expanduser().resolve() if configured else platformdirs.user_cache_path("freezeline")


def cache_dir() -> Path:
    """Return the folder of decoded images and features: FREEZELINE_CACHE, or by default in the state folder."""
    configured = os.environ.get("FREEZELINE_CACHE")
    return Path(configured).expanduser().resolve() if configured else state_dir() / "cache"


def state_dir_problem(error: OSError) -> str:
    """Return the message for an error because the state folder cannot be written; empty for other errors."""
    if error.errno not in UNWRITABLE or not isinstance(error.filename, str):
        return ""
    path = Path(error.filename)
    for name, folder in (("FREEZELINE_HOME", state_dir()), ("FREEZELINE_CACHE", cache_dir())):
        if path.is_relative_to(folder) or folder.is_relative_to(path):
            return (
                f"{name} must be a folder that can be written, got {folder} ({error.strerror}: {path}); "
                "set it to another folder"
            )
    return ""
