"""A packaged model's answers for files on disk."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from data.errors import DataError


def find_files(text: str) -> list[Path]:
    """Return the files that ``text`` names: one file, all visible files below a folder, or a pattern's matches.

    Raises:
        DataError: if there are none.
    """
    path = Path(os.path.expanduser(text))  # noqa: PTH111  # Path.expanduser raises for an unknown user
    if path.is_dir():
        found = [file for file in path.rglob("*") if file.is_file() and not _hidden(file.relative_to(path))]
    elif path.exists():
        found = [path]
    else:
        found = [Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).is_file()]  # noqa: PTH207  # Path.glob refuses an absolute pattern
    if not found:
        raise DataError(
            f"files must be a picture, a folder or a pattern that matches some, got {text!r}, which has none; "
            "check how it is written"
        )
    return sorted(found)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
