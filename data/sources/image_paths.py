"""From the paths of a manifest to files: as written, or by name if no path exists as written."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from data.errors import DataError
from data.sources.files import walk
from data.text import pluralize

MAX_INDEXED_FILES = 1_000_000


def resolve_paths(root: Path, texts: Sequence[str], images: str = "") -> tuple[dict[str, str], str]:
    """Return the path of each text, relative to ``root``, and how the images were found (empty: as written).

    If no text is a file, files with the same name are used: unique ones, in any letter case, with another or no folder,
    or without their extension. A text without a file keeps its path.

    Raises:
        DataError: no text has a file, although there are files.
    """
    folder = images_folder(root, images) if images else root
    written = {text: _written_path(folder, text) for text in texts}
    if not texts or any(_is_file(folder / path) for path in written.values()):
        return {text: _relative(root, folder, path) for text, path in written.items()}, ""
    files = [
        path.relative_to(folder).as_posix() for path, _ in zip(walk(folder), range(MAX_INDEXED_FILES), strict=False)
    ]
    index = _index(files)
    for num_dropped in range(max(len(_parts(text)) for text in texts)):
        found = {text: index.get(_key(text, num_dropped)) for text in texts}
        unique = {text: paths[0] for text, paths in found.items() if paths and len(paths) == 1}
        if unique:
            note = f"images: {len(unique):,} of {pluralize(len(written), 'path')} found by name below {folder}"
            merged = {**written, **unique}
            return {text: _relative(root, folder, path) for text, path in merged.items()}, note
    raise DataError(_none_exists(folder, texts, files))


def images_folder(root: Path, images: str) -> Path:
    """Return the folder of the option ``images``: relative to the working directory or to the manifest.

    Raises:
        DataError: it does not exist.
    """
    for folder in (Path(images).expanduser(), root / images):
        if _is_dir(folder):
            return folder.resolve()
    raise DataError(f"images must be an existing folder, got {images}; pass the folder that holds the images")


def _index(files: Sequence[str]) -> Mapping[str, list[str]]:
    """Return the files by each end of their path, in lower case, with and without extension."""
    index: defaultdict[str, list[str]] = defaultdict(list)
    for file in files:
        parts = PurePosixPath(file.lower()).parts
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            for key in {end, str(PurePosixPath(end).with_suffix(""))}:
                index[key].append(file)
    return index


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.replace("\\", "/").lower().split("/") if part not in ("", "."))


def _key(text: str, num_dropped: int) -> str:
    return "/".join(_parts(text)[num_dropped:])


def _written_path(root: Path, text: str) -> str:
    """Normalize a path; backslashes of manifests written on Windows are converted."""
    path = os.path.normpath(text)
    if "\\" in text and not _is_file(root / path):
        path = os.path.normpath(text.replace("\\", "/"))
    return path


def _relative(root: Path, folder: Path, path: str) -> str:
    return path if folder == root else os.path.relpath(folder / path, root)


def _none_exists(folder: Path, texts: Sequence[str], files: Sequence[str]) -> str:
    tables = (".csv", ".tsv", ".parquet", ".jsonl", ".md", ".txt", ".json")
    example = next((file for file in sorted(files) if not file.lower().endswith(tables)), "")
    step = f"{example} does: write paths like that" if example else "pass the folder of the images: images=FOLDER"
    count = f"none of {pluralize(len(texts), 'path')}" if len(texts) > 1 else "no path"
    return f"the paths of a manifest must be files, but {count} exists below {folder}, such as {texts[0][:200]}; {step}"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a null byte
        return False


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
