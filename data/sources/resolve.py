"""Opening the data source that the option ``data`` refers to."""

from __future__ import annotations

from pathlib import Path

from data.errors import DataError, did_you_mean
from data.parallel import ProgressCallback
from data.sources.archive import is_archive, open_archive
from data.sources.base import DataSource
from data.sources.demo import open_demo
from data.sources.folder import open_folder
from data.sources.manifest import ENDINGS as MANIFESTS
from data.sources.manifest import open_manifest


def open_source(data: str, progress: ProgressCallback | None = None, min_classes: int = 2) -> DataSource:
    """Open ``demo``, the path of a folder, a manifest or an archive, or ``s3://bucket/prefix``.

    A folder named demo is written as ``./demo``.

    Raises:
        DataError: the source does not exist, or has no labeled images.
    """
    data = data.strip()
    if not data:
        raise DataError("data must be a folder of images or demo, got an empty value; pass data=PATH or data=demo")
    if data == "demo":
        return open_demo()
    if "://" in data:
        return _open_uri(data, progress, min_classes)
    path = _resolve(data)
    if path.is_dir():
        return open_folder(path, min_classes=min_classes)
    if not path.exists():
        raise DataError(_not_found_message(data, path))
    return _open_file(path, progress, min_classes)


def _open_uri(data: str, progress: ProgressCallback | None, min_classes: int) -> DataSource:
    scheme = data.split("://", 1)[0]
    if scheme != "s3":
        raise DataError(
            f"a URI of data must be s3://bucket/prefix, got {scheme}://...; download the data and pass the folder"
        )
    from data.sources.s3 import open_s3

    return open_s3(data, progress, min_classes)


def _open_file(path: Path, progress: ProgressCallback | None, min_classes: int) -> DataSource:
    if path.suffix.lower() in MANIFESTS:
        return open_manifest(path, min_classes=min_classes)
    if path.is_file() and is_archive(path):
        return open_archive(path, progress=progress, min_classes=min_classes)
    raise DataError(
        f"data must be a folder, a manifest ({', '.join(MANIFESTS)}), or an archive (.zip, .tar, .tar.gz), "
        f"got another file: {path}; pass the folder that contains the class folders"
    )


def _resolve(data: str) -> Path:
    try:
        path = Path(data).expanduser().resolve()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"data must be a path, got {data!r}: {error}; check the spelling") from error
    return path


def _not_found_message(data: str, path: Path) -> str:
    siblings = sorted(sibling.name for sibling in path.parent.iterdir()) if path.parent.is_dir() else []
    hint = did_you_mean(path.name, siblings) or "; check the spelling"
    return f"data must be an existing folder, got {data} ({path}){hint}"
