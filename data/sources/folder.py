"""Data source: a folder of class folders, or of train/, val/ and test/ with class folders in each."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from data.errors import DataError
from data.sources.base import (
    SPLIT_ALIASES,
    SPLITS,
    DataSource,
    ImageFile,
    SkippedFile,
    SplitName,
    is_utf8,
    to_utf8,
    valid_name,
)

OUTSIDE_CLASS_FOLDERS = "is outside the class folders"


def open_folder(root: Path, name: str | None = None, uri: str | None = None, min_classes: int = 2) -> DataSource:
    """Open a folder of class folders, or of splits that contain class folders; its URI is by default its path.

    A folder with train/ and val/ or test/ (or common spellings of these), each with subfolders, provides splits. Images
    may be in subfolders of a class folder. Hidden files and folders are ignored.

    Raises:
        DataError: the folder cannot be opened, is empty, or has fewer than ``min_classes`` class folders.
    """
    folders, files = visible_children(root)
    splits = _split_folders(root, folders)
    scan = _FolderScan(root)
    for folder, split in splits.items():
        scan.add_classes(root / folder, split)
    if not splits:
        scan.add_classes(root, None)
    for path in files + [folder + "/" for folder in folders if splits and folder not in splits]:
        scan.skip(path, OUTSIDE_CLASS_FOLDERS)
    if len(scan.classes) < min_classes:
        _raise_too_few_classes(root, scan.classes, folders, files)
    return DataSource(
        name=name or valid_name(root.name),
        uri=uri or str(root),
        root=root,
        classes=tuple(sorted(scan.classes)),
        images=tuple(sorted(scan.images, key=lambda image: image.path)),
        skipped=tuple(scan.skipped),
    )


class _FolderScan:
    """Collects the images, classes and skipped files of a folder tree."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.classes: set[str] = set()
        self.images: list[ImageFile] = []
        self.skipped: list[SkippedFile] = []

    def add_classes(self, folder: Path, split: SplitName | None) -> None:
        labels, files = visible_children(folder)
        for name in files if split else []:
            self.skip(f"{folder.name}/{name}", OUTSIDE_CLASS_FOLDERS)
        for label in labels:
            self.classes.add(to_utf8(label))
            for path in walk(folder / label):
                self.add(path, label, split)

    def add(self, path: Path, label: str, split: SplitName | None) -> None:
        relative = path.relative_to(self.root).as_posix()
        problem = _problem(path, relative)
        if problem:
            self.skip(relative, problem)
        else:
            self.images.append(ImageFile(path=relative, label=label, split=split))

    def skip(self, path: str, reason: str) -> None:
        self.skipped.append(SkippedFile(path=to_utf8(path), reason=reason))


def _problem(path: Path, relative: str) -> str:
    """Return why a file cannot be an image; empty if it can."""
    if not is_utf8(relative):
        return "has a name that is not valid UTF-8; rename it to include it"
    try:
        mode = path.stat().st_mode
    except OSError as error:
        is_broken_link = error.errno in (errno.ENOENT, errno.ELOOP)
        return "is a link to a file that does not exist" if is_broken_link else f"cannot be accessed: {error.strerror}"
    if stat.S_ISDIR(mode):
        return "is a folder that cannot be opened"
    return "" if stat.S_ISREG(mode) else "is not a regular file"


def visible_children(folder: Path) -> tuple[list[str], list[str]]:
    """Return the sorted names of the folders and of the files that are not hidden."""
    try:
        entries = sorted((entry for entry in os.scandir(folder) if _visible(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"data must be a readable folder, got {folder}: {reason}; check its permissions") from error
    is_dir = {entry.name: _is_dir(entry) for entry in entries}
    return [name for name in is_dir if is_dir[name]], [name for name in is_dir if not is_dir[name]]


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or permission denied
        return False


def walk(folder: Path, parents: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield all files below a folder, and folders that cannot be opened."""
    real_path = os.path.realpath(folder)
    if real_path in parents:  # a link to a parent folder
        return
    try:
        folders, files = visible_children(folder)
    except DataError:
        yield folder
        return
    for name in files:
        yield folder / name
    for name in folders:
        yield from walk(folder / name, (*parents, real_path))


def _visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _split_folders(root: Path, folders: list[str]) -> dict[str, SplitName]:
    """Return the split of each folder that is a split; empty if the folders are classes."""
    splits = {name: SPLIT_ALIASES[name.lower()] for name in folders if name.lower() in SPLIT_ALIASES}
    if not {"train", "val"} <= set(splits.values()) and not {"train", "test"} <= set(splits.values()):
        return {}
    without_classes = [name for name in splits if not visible_children(root / name)[0]]
    if without_classes and len(splits) < len(folders):
        return {}  # "train" is one of the classes: bus, car, train
    problems = [_duplicate_split(root, split, splits) for split in SPLITS if list(splits.values()).count(split) > 1]
    problems += [
        f"{name}/ must contain one folder per class, got none in {root / name}; sort its images into class folders"
        for name in without_classes
    ]
    if problems:
        raise DataError(*problems)
    return splits


def _duplicate_split(root: Path, split: str, splits: dict[str, SplitName]) -> str:
    names = " and ".join(f"{name}/" for name, other in splits.items() if other == split)
    return f"the {split} split must be one folder, got {names} in {root}; keep one of them"


def _raise_too_few_classes(root: Path, classes: set[str], folders: list[str], files: list[str]) -> None:
    rule = "data must be a folder with one folder of images per class"
    if not folders and not files:
        raise DataError(f"{rule}, got an empty folder: {root}; add images, or pass another folder")
    if not classes:
        raise DataError(f"{rule}, got {len(files)} files and no folder in {root}; sort the images into class folders")
    (label,) = classes
    subfolders = [] if len(folders) > 1 else visible_children(root / label)[0]
    hint = f"did you mean {root / label}?" if len(subfolders) > 1 else "add a folder for each other class"
    raise DataError(f"data must have at least 2 classes, got 1 ({label}) in {root}; {hint}")
