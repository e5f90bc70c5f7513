"""From the paths of a manifest to files: as written, or by name if no path exists as written."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from data.errors import DataError
from data.sources.base import SplitName
from data.sources.columns import is_image_name
from data.sources.files import walk
from data.sources.layout import split_of
from data.text import pluralize

MAX_INDEXED_FILES = 1_000_000


def resolve_paths(
    root: Path, texts: Sequence[str], images: str = "", split: SplitName | None = None
) -> tuple[dict[str, str], str]:
    """Return the path of each text, relative to ``root``, and how the images were found (empty: as written).

    If no text is a file, files with the same name are used: in any letter case, with another or no folder, or without
    their extension. If several files have one of the names, all names must be in one folder. The folders of other
    splits are not used by the table of a ``split``. A text without a file keeps its path.

    Raises:
        DataError: no text has a file, although there are files; or several files have the same name.
    """
    folder = images_folder(root, images) if images else root
    written = {text: _written_path(folder, text) for text in texts}
    if not texts or any(_is_file(folder / path) for path in written.values()):
        return {text: _relative(root, folder, path) for text, path in written.items()}, ""
    files = [
        path.relative_to(folder).as_posix() for path, _ in zip(walk(folder), range(MAX_INDEXED_FILES), strict=False)
    ]
    index = _index([file for file in files if not _is_of_other_split(file, split)])
    for num_dropped in range(max(len(_parts(text)) for text in texts)):
        keys = {text: _key(text, num_dropped) for text in texts}
        found = {text: paths for text, key in keys.items() if (paths := _candidates(index, key))}
        if found:
            chosen = _in_one_folder(folder, found)
            note = f"images: {len(chosen):,} of {pluralize(len(written), 'path')} found by name below {folder}"
            merged = {**written, **chosen}
            return {text: _relative(root, folder, path) for text, path in merged.items()}, note
    raise DataError(_none_exists(folder, texts, files))


def _is_of_other_split(file: str, split: SplitName | None) -> bool:
    top = PurePosixPath(file).parts[0]
    return split is not None and top != file and split_of(top) not in (None, split)


def _candidates(index: Mapping[str, list[str]], key: str) -> list[str]:
    """Return the files of a key; a number also stands for the same number with leading zeros."""
    return index.get(key) or (index.get(f"#{int(key)}", []) if key.isdecimal() else [])


def _in_one_folder(folder: Path, found: Mapping[str, list[str]]) -> dict[str, str]:
    """Return the file of each text; if a text has several, those in the one folder that has a file for every text.

    Raises:
        DataError: there is no such folder.
    """
    if all(len(paths) == 1 for paths in found.values()):
        return {text: paths[0] for text, paths in found.items()}
    by_folder = {text: {str(PurePosixPath(path).parent): path for path in paths} for text, paths in found.items()}
    common = sorted(set.intersection(*(set(paths) for paths in by_folder.values())))
    if len(common) == 1:
        return {text: paths[common[0]] for text, paths in by_folder.items()}
    text, paths = next((text, paths) for text, paths in found.items() if len(paths) > 1)
    raise DataError(
        f"the paths of a manifest must name one file each, but {text[:200]} may be {paths[0]} or {paths[1]} in "
        f"{folder}; pass the folder of its images: images=FOLDER"
    )


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
            stem = str(PurePosixPath(end).with_suffix(""))
            for key in {end, stem, *([f"#{int(stem)}"] if stem.isdecimal() else [])}:
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
    example = next((file for file in sorted(files) if is_image_name(file)), "")
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
