"""Opening the data source that the option ``data`` refers to."""

from __future__ import annotations

from pathlib import Path

from data.errors import DataError, did_you_mean, one_line
from data.parallel import ProgressCallback
from data.sources.archive import ENDINGS, is_archive, open_archive
from data.sources.base import DataSource
from data.sources.demo import open_demo
from data.sources.files import visible_children
from data.sources.manifest import open_manifest
from data.sources.options import DataOptions
from data.sources.tables import ENDINGS as MANIFESTS
from data.sources.tree import DOCUMENTS, MAX_DEPTH, open_local_folder


def open_source(options: str | DataOptions, progress: ProgressCallback | None = None) -> DataSource:
    """Open ``demo``, the path of a folder, a manifest or an archive, or ``s3://bucket/prefix``.

    A folder named demo is written as ``./demo``.

    Raises:
        DataError: the source does not exist, or has no labeled images.
    """
    options = DataOptions.model_construct(data=options) if isinstance(options, str) else options
    data = options.data.strip()
    if not data:
        raise DataError("data must be a folder of images or demo, got an empty value; pass data=PATH or data=demo")
    if data == "demo":
        return open_demo()
    if "://" in data:
        return _open_uri(data, options, progress)
    path = _resolve(data)
    if path.is_dir():
        return _open_folder(path, options, progress)
    if not path.exists():
        raise DataError(_not_found_message(data, path))
    return _open_file(path, options, progress)


def _open_folder(path: Path, options: DataOptions, progress: ProgressCallback | None) -> DataSource:
    archives = _sole_archives(path)
    if len(archives) > 1:
        names = " and ".join(archive.name for archive in archives)
        raise DataError(
            f"data must be one archive, or a folder of images, but {archives[0].parent} has {names}; extract them into "
            "one folder, each into a folder that is named after its split, such as train or test"
        )
    if not archives:
        return open_local_folder(path, options)
    source = open_archive(archives[0], options, progress=progress)
    return source.model_copy(update={"layout": (f"found in {archives[0].relative_to(path)}", *source.layout)})


def _sole_archives(root: Path) -> list[Path]:
    """Return the archives in a folder, or below its sole folders, that has nothing else than documents."""
    folder = root
    for _ in range(MAX_DEPTH):
        folders, files = visible_children(folder)
        archives = [file for file in files if file.lower().endswith(ENDINGS)]
        documents = [file for file in files if Path(file).suffix.lower() in DOCUMENTS]
        has_others = len(archives) + len(documents) < len(files)
        if has_others or len(folders) > 1 or (archives and folders):
            return []
        if archives or not folders:
            return [folder / archive for archive in archives]
        folder /= folders[0]
    return []


def _open_uri(data: str, options: DataOptions, progress: ProgressCallback | None) -> DataSource:
    scheme = data.split("://", 1)[0]
    if scheme != "s3":
        raise DataError(
            f"a URI of data must be s3://bucket/prefix, got {scheme}://...; download the data and pass the folder"
        )
    from data.sources.s3 import open_s3

    return open_s3(data, options, progress)


def _open_file(path: Path, options: DataOptions, progress: ProgressCallback | None) -> DataSource:
    if path.suffix.lower() in MANIFESTS:
        return open_manifest(path, options=options)
    if path.is_file() and is_archive(path):
        return open_archive(path, options, progress=progress)
    raise DataError(
        f"data must be a folder, a manifest ({', '.join(MANIFESTS)}), or an archive (.zip, .tar, .tar.gz), "
        f"got another file: {path}; pass the folder that contains the class folders"
    )


def _resolve(data: str) -> Path:
    try:
        path = Path(data).expanduser().resolve()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"data must be a path, got {data!r}: {one_line(error)}; check the spelling") from error
    return path


def _not_found_message(data: str, path: Path) -> str:
    siblings = sorted(sibling.name for sibling in path.parent.iterdir()) if path.parent.is_dir() else []
    hint = did_you_mean(path.name, siblings) or "; check the spelling"
    return f"data must be an existing folder, got {data} ({path}){hint}"
