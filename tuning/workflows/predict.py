"""The predict workflow: the image files that a command line names."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from data.errors import DataError


def find_files(text: str) -> list[Path]:
    """Return the files that ``text`` names: one file, all visible files below a folder, or the matches of a pattern.

    Raises:
        DataError: no file matches.
    """
    path = Path(os.path.expanduser(text))  # noqa: PTH111  # Path.expanduser raises for an unknown user
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(path))]
    elif path.exists():
        files = [path]
    else:
        files = [Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).is_file()]  # noqa: PTH207  # Path.glob refuses an absolute pattern
    if not files:
        raise DataError(
            f"files must be an image file, a folder of files or a pattern that matches files, got {text!r}; "
            "check the spelling"
        )
    return sorted(files)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
