"""Atomic writes: a reader sees the old file or the new one."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)  # of an OSError: the disk, or the user's share of it, is full


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` beside ``path`` and rename it there, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
    beside.write_bytes(content)
    beside.replace(path)
