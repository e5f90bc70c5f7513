"""Atomic file writes: readers see either the old or the new content."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)  # no space left on the disk, or the user's quota is exceeded


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to a temporary file in the same folder and rename it to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
    temporary.write_bytes(content)
    temporary.replace(path)
