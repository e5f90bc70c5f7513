"""Which kind of source ``data=...`` names."""

from __future__ import annotations

from pathlib import Path

from data.errors import DataError, did_you_mean
from data.parallel import Progress
from data.sources.archive import is_archive, open_archive
from data.sources.base import DataSource
from data.sources.demo import open_demo
from data.sources.folder import open_folder
from data.sources.manifest import ENDINGS as MANIFESTS
from data.sources.manifest import open_manifest


def open_source(data: str, progress: Progress | None = None) -> DataSource:
    """Return the labelled files that ``data`` names.

    It is ``demo``, or the path of a folder, a manifest (.csv, .tsv, .parquet), or an archive (.zip, .tar, ...), or
    ``s3://bucket/prefix``. A folder that is itself named demo is written ``./demo``.
    ``progress(what, done, of)`` is told what is fetched or unpacked first.

    Raises:
        DataError: there is nothing there, or nothing that pictures and labels can be taken from.
    """
    data = data.strip()
    if not data:
        raise DataError("data must be a folder of pictures or demo, got an empty text; pass data=PATH or data=demo")
    if data == "demo":
        return open_demo()
    if "://" in data:
        return _open_uri(data, progress)
    path = _resolve(data)
    if path.is_dir():
        return open_folder(path)
    if not path.exists():
        raise DataError(_missing(data, path))
    return _open_file(path, progress)


def _open_uri(data: str, progress: Progress | None) -> DataSource:
    scheme = data.split("://", 1)[0]
    if scheme != "s3":
        raise DataError(
            f"data from elsewhere must be s3://bucket/prefix, got {scheme}://...; fetch it and name the folder"
        )
    from data.sources.s3 import open_s3

    return open_s3(data, progress)


def _open_file(path: Path, progress: Progress | None) -> DataSource:
    if path.suffix.lower() in MANIFESTS:
        return open_manifest(path)
    if path.is_file() and is_archive(path):
        return open_archive(path, progress=progress)
    raise DataError(
        f"data must be a folder, a manifest ({', '.join(MANIFESTS)}), or an archive (.zip, .tar, .tar.gz), "
        f"got another file: {path}; name the folder that holds the class folders"
    )


def _resolve(data: str) -> Path:
    try:
        path = Path(data).expanduser().resolve()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"data must be a path, got {data!r}: {error}; check its spelling") from error
    return path


def _missing(data: str, path: Path) -> str:
    siblings = sorted(sibling.name for sibling in path.parent.iterdir()) if path.parent.is_dir() else []
    near = did_you_mean(path.name, siblings) or "; check how it is written"
    return f"data must be a folder that exists, got {data} ({path}){near}"
