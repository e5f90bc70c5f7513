"""Data source: a .zip or .tar archive, extracted once into the cache with protection against path traversal."""

from __future__ import annotations

import hashlib
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from data.cache.content_cache import ContentCache
from data.errors import DataError, one_line
from data.parallel import ProgressCallback
from data.sources.base import DataSource, valid_name
from data.sources.options import DataOptions
from data.sources.tree import open_tree

MAX_FILES = 1_000_000
MAX_BYTES = 200 * 2**30
SMALL_BYTES = 2**30  # up to this size the compression ratio is not checked
MAX_COMPRESSION_RATIO = 100  # images are already compressed, so a higher ratio indicates a zip bomb
ENDINGS = (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".tbz2", ".txz", ".tar", ".zip")


class ArchiveMember(NamedTuple):
    """A regular file in an archive: name, size in bytes, and the handle to open it."""

    name: str
    size: int
    handle: zipfile.ZipInfo | tarfile.TarInfo


def is_archive(file: Path) -> bool:
    """Return whether the content of a file is a supported archive, also an incomplete one."""
    if zipfile.is_zipfile(file):
        return True
    try:
        return tarfile.is_tarfile(file)
    except OSError:
        raise
    except Exception:  # the compressed data is incomplete or corrupt
        return True


def open_archive(
    file: Path, options: DataOptions, uri: str | None = None, progress: ProgressCallback | None = None
) -> DataSource:
    """Open an archive with class folders, with splits of class folders, or with a manifest at its top level.

    Folders that contain only another folder are skipped. Links and devices are not extracted. The data set's URI is by
    default the path.

    Raises:
        DataError: the archive is corrupt, encrypted or too large, has a member whose path leads outside the
            archive, or contains no data set.
    """
    stat = file.stat()
    stat_key = f"{file} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}"
    key = f"archives/{hashlib.blake2b(stat_key.encode('utf-8', 'surrogateescape'), digest_size=16).hexdigest()}"
    root = ContentCache().get_or_create(key, lambda folder: _extract(file, folder, progress))
    return open_tree(root, _name(file), uri or str(file), options)


def _name(file: Path) -> str:
    ending = next((ending for ending in ENDINGS if file.name.lower().endswith(ending)), "")
    return valid_name(file.name.removesuffix(file.name[len(file.name) - len(ending) :]))


def _extract(file: Path, folder: Path, progress: ProgressCallback | None) -> None:
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                _write_all(file, folder, list(_zip_members(archive)), archive.open, progress)
        else:
            with tarfile.open(file) as tar:
                _write_all(file, folder, _tar_members(file, folder, tar), tar.extractfile, progress)
    except DataError:
        raise
    except Exception as error:  # zipfile and tarfile raise many exception types for corrupt archives
        raise DataError(
            f"an archive must be complete and not encrypted, got {file}: {one_line(error)}; create it again"
        ) from error


def _zip_members(archive: zipfile.ZipFile) -> Iterator[ArchiveMember]:
    for info in archive.infolist():
        if not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16):
            yield ArchiveMember(info.filename.replace("\\", "/"), info.file_size, info)


def _tar_members(file: Path, folder: Path, tar: tarfile.TarFile) -> list[ArchiveMember]:
    """List the regular files; sizes are checked on the way, because listing a compressed tar decompresses it."""
    members, total_bytes = [], 0
    for count, info in enumerate(tar, start=1):
        total_bytes += info.size
        _check_size(file, folder, count, total_bytes)
        if info.isreg():
            members.append(ArchiveMember(info.name, info.size, info))
    return members


def _write_all(
    file: Path, folder: Path, members: list[ArchiveMember], opener: object, progress: ProgressCallback | None
) -> None:
    _check_size(file, folder, len(members), sum(member.size for member in members))
    targets = [_target_path(file, folder, member.name) for member in members]
    for completed, (member, target) in enumerate(zip(members, targets, strict=True), start=1):
        stream: IO[bytes] | None = opener(member.handle)  # type: ignore[operator]
        if stream and target:
            target.parent.mkdir(parents=True, exist_ok=True)
            with stream, target.open("wb") as output:
                shutil.copyfileobj(stream, output)
        if progress:
            progress("extracting files", completed, len(members))


def _target_path(file: Path, folder: Path, name: str) -> Path:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or (len(name) > 1 and name[1] == ":") or "\0" in name:
        raise DataError(
            f"the members of an archive must not have paths that lead outside of it, got {name!r} in {file}; "
            "do not trust this archive, or create it again without that member"
        )
    return folder.joinpath(*path.parts)


def _check_size(file: Path, folder: Path, count: int, total_bytes: int) -> None:
    archive_bytes = file.stat().st_size
    max_bytes = min(MAX_BYTES, max(SMALL_BYTES, MAX_COMPRESSION_RATIO * archive_bytes))
    free_bytes = shutil.disk_usage(folder).free
    if count > MAX_FILES:
        raise DataError(f"an archive must have at most {MAX_FILES:,} files, got more in {file}; extract it yourself")
    if total_bytes > max_bytes:
        raise DataError(
            f"an archive of {archive_bytes:,} bytes must extract to at most {max_bytes:,}, got at least "
            f"{total_bytes:,} in {file}; if you trust it, extract it yourself and pass the folder"
        )
    if total_bytes > free_bytes:
        raise DataError(
            f"an extracted archive must fit on the disk, got {file} with {total_bytes:,} bytes and {free_bytes:,} "
            "bytes free; free some space, or set FREEZELINE_HOME to a folder on another disk"
        )
