"""A .zip or .tar archive, unpacked once into the store so that nothing in it can reach outside."""

from __future__ import annotations

import hashlib
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from data.cache.content_cache import ContentCache
from data.errors import DataError
from data.parallel import Progress
from data.sources.base import DataSource, valid_name
from data.sources.folder import open_folder, visible_children
from data.sources.manifest import is_manifest, open_manifest

MAX_FILES = 1_000_000
MAX_BYTES = 200 * 2**30
SMALL_BYTES = 2**30  # below it, how much smaller the archive is does not matter
MAX_COMPRESSION_RATIO = 100  # times its own size that an archive may grow to: pictures are compressed already
ENDINGS = (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".tbz2", ".txz", ".tar", ".zip")
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError)


class ArchiveMember(NamedTuple):
    """A regular file in an archive: its name there, its size in bytes, and how to open it."""

    name: str
    size: int
    handle: zipfile.ZipInfo | tarfile.TarInfo


def is_archive(file: Path) -> bool:
    """Return whether a file is an archive, by its content."""
    return zipfile.is_zipfile(file) or tarfile.is_tarfile(file)


def open_archive(
    file: Path, name: str | None = None, uri: str | None = None, progress: Progress | None = None
) -> DataSource:
    """Return the labelled files in an archive: of class folders, of train/ val/ test/, or of a manifest at its top.

    Folders that hold nothing but another folder are passed through. Links and devices are not unpacked.

    Raises:
        DataError: it is broken or encrypted, an entry would lie outside, it is too large, or holds no data set.
    """
    state = file.stat()
    stamp = f"{file} {state.st_size} {state.st_mtime_ns} {state.st_ino}"
    key = f"archives/{hashlib.blake2b(stamp.encode('utf-8', 'surrogateescape'), digest_size=16).hexdigest()}"
    root = ContentCache().get_or_create(key, lambda folder: _unpack(file, folder, progress))
    return open_tree(root, name or _name(file), uri or str(file))


def open_tree(root: Path, name: str, uri: str) -> DataSource:
    """Return the labelled files in a folder that came whole from elsewhere: it may have a manifest at its top."""
    folder = root
    folders, files = visible_children(folder)
    while not files and len(folders) == 1:
        folder /= folders[0]
        folders, files = visible_children(folder)
    manifests = [folder / file for file in files if is_manifest(folder / file)]
    try:
        if len(manifests) == 1:
            return open_manifest(manifests[0], name, uri, confine_to=root)
        return open_folder(folder, name, uri)
    except DataError as error:  # say what the user named, not where it lies in the store
        raise DataError(*(problem.replace(str(root), uri) for problem in error.problems)) from error


def _name(file: Path) -> str:
    ending = next((ending for ending in ENDINGS if file.name.lower().endswith(ending)), "")
    return valid_name(file.name.removesuffix(file.name[len(file.name) - len(ending) :]))


def _unpack(file: Path, folder: Path, progress: Progress | None) -> None:
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                _write_all(file, folder, list(_zip_entries(archive)), archive.open, progress)
        else:
            with tarfile.open(file) as tar:
                _write_all(file, folder, _tar_entries(file, tar), tar.extractfile, progress)
    except BROKEN as error:
        raise DataError(f"an archive must be whole and not encrypted, got {file}: {error}; make it anew") from error


def _zip_entries(archive: zipfile.ZipFile) -> Iterator[ArchiveMember]:
    for info in archive.infolist():
        if not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16):
            yield ArchiveMember(info.filename.replace("\\", "/"), info.file_size, info)


def _tar_entries(file: Path, tar: tarfile.TarFile) -> list[ArchiveMember]:
    """Return the files, checking sizes on the way: to list a packed tar is to unpack it."""
    entries, total = [], 0
    for count, info in enumerate(tar, start=1):
        total += info.size
        _check_size(file, count, total)
        if info.isreg():
            entries.append(ArchiveMember(info.name, info.size, info))
    return entries


def _write_all(
    file: Path, folder: Path, entries: list[ArchiveMember], opener: object, progress: Progress | None
) -> None:
    _check_size(file, len(entries), sum(entry.size for entry in entries))
    places = [_place(file, folder, entry.name) for entry in entries]
    for done, (entry, place) in enumerate(zip(entries, places, strict=True), start=1):
        stream: IO[bytes] | None = opener(entry.handle)  # type: ignore[operator]
        if stream and place:
            place.parent.mkdir(parents=True, exist_ok=True)
            with stream, place.open("wb") as target:
                shutil.copyfileobj(stream, target)
        if progress:
            progress("unpacking files", done, len(entries))


def _place(file: Path, folder: Path, name: str) -> Path:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or (len(name) > 1 and name[1] == ":") or "\0" in name:
        raise DataError(
            f"an archive's entries must lie inside it, got {name!r} in {file}; don't trust it, or pack it without"
        )
    return folder.joinpath(*path.parts)


def _check_size(file: Path, count: int, total: int) -> None:
    most = min(MAX_BYTES, max(SMALL_BYTES, MAX_COMPRESSION_RATIO * file.stat().st_size))
    free = shutil.disk_usage(ContentCache().root.parent if ContentCache().root.parent.is_dir() else file.parent).free
    if count > MAX_FILES:
        raise DataError(f"an archive must have at most {MAX_FILES:,} files, got more in {file}; unpack it yourself")
    if total > most:
        raise DataError(
            f"an archive of {file.stat().st_size:,} bytes must unpack to at most {most:,}, got {total:,} or more from "
            f"{file}; if you trust it, unpack it yourself and name the folder"
        )
    if total > free:
        raise DataError(
            f"unpacking {file} must leave room on the disk, got {free:,} bytes free of {total:,} needed; "
            "make room, or set FREEZELINE_HOME to a folder on another disk"
        )
