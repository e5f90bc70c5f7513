"""A folder of class folders, or of train/ val/ test/ with class folders in each."""

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
    is_plain,
    to_utf8,
    valid_name,
)


def open_folder(root: Path, name: str | None = None, uri: str | None = None) -> DataSource:
    """Return the labelled files under ``root``, an absolute path of a folder that exists.

    A folder with train/ and val/ or test/ (or the usual other spellings), each holding folders, is kept as split
    by the user; any other is a folder of class folders. Pictures may lie deeper inside a class folder.
    Hidden files and folders are passed over. ``name`` and ``address`` are the folder's own where none are given.

    Raises:
        DataError: the folder can't be opened, is empty, or has fewer than two class folders.
    """
    folders, loose = visible_children(root)
    splits = _split_folders(root, folders)
    found = _Found(root)
    for folder, split in splits.items():
        found.add_classes(root / folder, split)
    if not splits:
        found.add_classes(root, None)
    for stray in loose + [name + "/" for name in folders if splits and name not in splits]:
        found.skip(stray, "lies outside the class folders")
    _check_classes(root, found.classes, folders, loose)
    return DataSource(
        name=name or valid_name(root.name),
        uri=uri or str(root),
        root=root,
        classes=tuple(sorted(found.classes)),
        images=tuple(sorted(found.images, key=lambda picture: picture.path)),
        skipped=tuple(found.skipped),
    )


class _Found:
    """What a walk through the folders has found so far."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.classes: set[str] = set()
        self.images: list[ImageFile] = []
        self.skipped: list[SkippedFile] = []

    def add_classes(self, folder: Path, split: SplitName | None) -> None:
        labels, loose = visible_children(folder)
        for name in loose if split else []:
            self.skip(f"{folder.name}/{name}", "lies outside the class folders")
        for label in labels:
            self.classes.add(to_utf8(label))
            for path in _walk(folder / label):
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
    """Return why a file is no candidate, empty where it is one."""
    if not is_plain(relative):
        return "has a name that is not valid UTF-8; rename it to have it counted"
    try:
        mode = path.stat().st_mode
    except OSError as error:
        gone = error.errno in (errno.ENOENT, errno.ELOOP)
        return "is a link to a file that does not exist" if gone else f"can't be looked at: {error.strerror}"
    if stat.S_ISDIR(mode):
        return "is a folder that can't be opened"
    return "" if stat.S_ISREG(mode) else "is no regular file"


def visible_children(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the visible folders and of the other visible files, sorted."""
    try:
        entries = sorted((entry for entry in os.scandir(folder) if _visible(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"data must be a folder that can be opened, got {folder}: {reason}; give your user the right to read it"
        ) from error
    kinds = {entry.name: _is_dir(entry) for entry in entries}
    return [name for name in kinds if kinds[name]], [name for name in kinds if not kinds[name]]


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or nothing that we may look at
        return False


def _walk(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    here = os.path.realpath(folder)
    if here in above:  # a link back to a folder that we are in
        return
    try:
        folders, files = visible_children(folder)
    except DataError:
        yield folder
        return
    for name in files:
        yield folder / name
    for name in folders:
        yield from _walk(folder / name, (*above, here))


def _visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _split_folders(root: Path, folders: list[str]) -> dict[str, SplitName]:
    """Return which of the folders are the user's splits; empty where they are classes."""
    splits = {name: SPLIT_ALIASES[name.lower()] for name in folders if name.lower() in SPLIT_ALIASES}
    if not {"train", "val"} <= set(splits.values()) and not {"train", "test"} <= set(splits.values()):
        return {}
    without = [name for name in splits if not visible_children(root / name)[0]]
    if without and len(splits) < len(folders):
        return {}  # `train` is a class among others: buses, cars, trains
    problems = [_duplicate_split(root, split, splits) for split in SPLITS if list(splits.values()).count(split) > 1]
    problems += [
        f"{name}/ must hold one folder for each class, got none in {root / name}; "
        "sort its pictures into folders named after their classes"
        for name in without
    ]
    if problems:
        raise DataError(*problems)
    return splits


def _duplicate_split(root: Path, split: str, splits: dict[str, SplitName]) -> str:
    names = " and ".join(f"{name}/" for name, meant in splits.items() if meant == split)
    return f"there must be one folder for the {split} pictures, got {names} in {root}; keep one of them"


def _check_classes(root: Path, classes: set[str], folders: list[str], loose: list[str]) -> None:
    if len(classes) >= 2:
        return
    rule = "data must be a folder with one folder of pictures for each class"
    if not folders and not loose:
        raise DataError(f"{rule}, got an empty folder: {root}; put the pictures there or name another folder")
    if not classes:
        raise DataError(
            f"{rule}, got {len(loose)} loose files and no folder in {root}; "
            "sort the pictures into folders named after their classes"
        )
    (label,) = classes
    inner = [] if len(folders) > 1 else visible_children(root / label)[0]
    hint = f"did you mean {root / label}?" if len(inner) > 1 else "add a folder for each other class"
    raise DataError(f"data must have at least 2 classes, got 1 ({label}) in {root}; {hint}")
