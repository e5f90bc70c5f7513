"""Which kind of source ``data=...`` names."""

from __future__ import annotations

from pathlib import Path

from data.errors import DataError, did_you_mean
from data.parallel import Progress
from data.sources.base import Source
from data.sources.demo import open_demo
from data.sources.folder import open_folder


def open_source(data: str, progress: Progress | None = None) -> Source:
    """Return the labelled files that ``data`` names: ``demo``, or the path of a folder.

    A folder that is itself named demo is written ``./demo``.

    ``progress(what, done, of)`` is told what is fetched or unpacked first.

    Raises:
        DataError: there is nothing there, or nothing that pictures and labels can be taken from.
    """
    del progress
    if not data.strip():
        raise DataError("data must be a folder of pictures or demo, got an empty text; pass data=PATH or data=demo")
    if data.strip() == "demo":
        return open_demo()
    path = _resolve(data)
    if not path.exists():
        raise DataError(_missing(data, path))
    if not path.is_dir():
        raise DataError(f"data must be a folder of pictures or demo, got a file: {path}; name the folder")
    return open_folder(path)


def _resolve(data: str) -> Path:
    try:
        path = Path(data.strip()).expanduser().resolve()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"data must be a path, got {data!r}: {error}; check its spelling") from error
    return path


def _missing(data: str, path: Path) -> str:
    siblings = sorted(sibling.name for sibling in path.parent.iterdir()) if path.parent.is_dir() else []
    return f"data must be a folder that exists, got {data} ({path}){did_you_mean(path.name, siblings)}"
