"""Visible files and folders; what operating systems and storage devices leave behind is ignored."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from data.errors import DataError
from data.sources.base import is_utf8

IGNORED_NAMES = frozenset(
    (
        *("__macosx", "$recycle.bin", "system volume information", "lost+found", "@eadir", "#recycle", "@tmp"),
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    )
)


def visible_children(folder: Path) -> tuple[list[str], list[str]]:
    """Return the sorted names of the folders and of the files that are neither hidden nor ignored."""
    try:
        entries = sorted((entry for entry in os.scandir(folder) if _visible(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"data must be a readable folder, got {folder}: {reason}; check its permissions") from error
    is_dir = {entry.name: _is_dir(entry) for entry in entries}
    return [name for name in is_dir if is_dir[name]], [name for name in is_dir if not is_dir[name]]


def walk(folder: Path, parents: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield all files below a folder, and folders that cannot be opened."""
    real_path = os.path.realpath(folder)
    if real_path in parents:  # a link to a parent folder
        return
    try:
        folders, files = visible_children(folder)
    except DataError:
        yield folder
        return
    for name in files:
        yield folder / name
    for name in folders:
        yield from walk(folder / name, (*parents, real_path))


def count_files(folder: Path) -> int:
    """Return the number of files below a folder."""
    return sum(1 for _ in walk(folder))


def file_problem(path: Path, relative: str) -> str:
    """Return why a file cannot be an image; empty if it can."""
    if not is_utf8(relative):
        return "has a name that is not valid UTF-8; rename it to include it"
    try:
        mode = path.stat().st_mode
    except OSError as error:
        is_broken_link = error.errno in (errno.ENOENT, errno.ELOOP)
        return "is a link to a file that does not exist" if is_broken_link else f"cannot be accessed: {error.strerror}"
    if stat.S_ISDIR(mode):
        return "is a folder that cannot be opened"
    return "" if stat.S_ISREG(mode) else "is not a regular file"


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or permission denied
        return False


def _visible(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in IGNORED_NAMES
