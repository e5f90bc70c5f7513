"""What the folders of a data set are: splits that hold class folders, or classes.

A doubtful layout is refused with a question, because a wrong guess would train a model of other classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from data.errors import DataError
from data.sources.base import SPLIT_ALIASES, SPLITS, SplitName, to_utf8
from data.sources.files import visible_children
from data.sources.name_patterns import suggest_pattern

KEEP_AS_CLASSES = "pass layout=classes to use the folders as classes"
MIN_COMMON_FOLDERS = 2  # sub-folders that all folders must have in common to look like splits


class Layout(NamedTuple):
    """The folders that are splits (empty: all folders are classes), and split folders whose images have no label."""

    splits: dict[str, SplitName]
    unlabeled: tuple[str, ...] = ()


def split_of(name: str) -> SplitName | None:
    """Return the split that a name such as ``train``, ``seg_train`` or ``test-images`` stands for, if any."""
    words = re.split(r"[\W_]+", name.lower())
    splits = {SPLIT_ALIASES[word] for word in words if word in SPLIT_ALIASES}
    return splits.pop() if len(splits) == 1 else None


def splits_of(names: Iterable[str]) -> dict[str, SplitName]:
    """Return the split of each name that stands for one; beside ``test``, ``eval`` is the validation split."""
    found = {name: split for name in names if (split := split_of(name))}
    is_eval = {name: bool(re.search(r"(^|[\W_])eval(uation)?([\W_]|$)", name.lower())) for name in found}
    if "val" not in found.values() and any(split == "test" and not is_eval[name] for name, split in found.items()):
        found.update({name: "val" for name in found if is_eval[name]})
    return found


def are_splits(splits: Mapping[str, SplitName]) -> bool:
    """Return whether folders provide splits: the training split and another one."""
    return "train" in splits.values() and len(set(splits.values())) > 1


def split_lines(splits: Mapping[str, SplitName]) -> tuple[str, ...]:
    """Return a line that says which folders are the splits; none without splits."""
    if not splits:
        return ()
    ordered = sorted(splits.items(), key=lambda item: SPLITS.index(item[1]))
    missing = " and ".join(split for split in SPLITS if split not in splits.values())
    parts = [f"{split} from {to_utf8(folder)}/" for folder, split in ordered]
    return (f"splits: {', '.join(parts)}" + (f"; {missing} taken from train" if missing else ""),)


def find_layout(root: Path, folders: list[str]) -> Layout:
    """Return which of the visible folders of ``root`` are splits.

    Raises:
        DataError: the folders may be splits or classes, two folders are the same split, or ``train`` has no classes.
    """
    classes = {name: visible_children(root / name)[0] for name in folders}
    splits = splits_of(folders)
    if not are_splits(splits):
        _refuse_doubtful_classes(root, classes, splits)
        return Layout({})
    flat = tuple(name for name in splits if not classes[name])
    train = [name for name, split in splits.items() if split == "train"]
    if flat and (set(train) & set(flat)):
        _refuse_flat_splits(root, flat, splits, folders)
        return Layout({})
    _refuse_unequal_classes(root, classes, splits, flat)
    labeled = {name: split for name, split in splits.items() if name not in flat}
    problems = [_duplicate_split(root, split, labeled) for split in SPLITS if list(labeled.values()).count(split) > 1]
    if problems:
        raise DataError(*problems)
    return Layout(labeled, flat)


def _refuse_doubtful_classes(root: Path, classes: Mapping[str, list[str]], splits: Mapping[str, SplitName]) -> None:
    """Refuse folders that would be classes but look like splits or hold the data set."""
    if len(classes) < 2:
        return
    for name in splits:
        if len(classes[name]) > 1 and not any(classes[other] for other in classes if other != name):
            raise DataError(
                f"the folders of data must be classes, or splits such as train/ and test/, got {_listed(classes)} in "
                f"{root}, of which {name}/ has sub-folders; is it the data set (pass data={root / name}), or are all "
                f"of them classes? Then {KEEP_AS_CLASSES}"
            )
    names = [set(labels) for labels in classes.values()]
    if len(names[0]) >= MIN_COMMON_FOLDERS and all(labels == names[0] for labels in names):
        raise DataError(
            f"the folders of data must be classes, or splits such as train/ and test/, got {_listed(classes)} in "
            f"{root}, which all hold the folders {_listed(names[0])}; are those the classes? Then rename the upper "
            f"folders to train/, val/ and test/, or pass one of them; else {KEEP_AS_CLASSES}"
        )


def _refuse_flat_splits(root: Path, flat: tuple[str, ...], splits: Mapping[str, SplitName], folders: list[str]) -> None:
    """Refuse a training split without class folders."""
    names = visible_children(root / next(name for name in flat if splits[name] == "train"))[1]
    hint = (
        f"sort its images into class folders, or list them in a table (columns path and label){suggest_pattern(names)}"
    )
    if len(splits) == len(folders) and all(name.lower() in SPLIT_ALIASES for name in splits):
        raise DataError(
            *(f"{name}/ must contain one folder per class, got none in {root / name}; {hint}" for name in flat)
        )
    raise DataError(
        f"split folders must contain one folder per class, got none in {_listed(flat)} of {root}; are they classes, "
        f"like {_listed(set(folders) - set(flat)) or 'others'}? Then {KEEP_AS_CLASSES}; else {hint}"
    )


def _refuse_unequal_classes(
    root: Path, classes: Mapping[str, list[str]], splits: Mapping[str, SplitName], flat: tuple[str, ...]
) -> None:
    """Refuse names with a split word, such as train_station, whose sub-folders have no name in common."""
    labeled = [name for name in splits if name not in flat]
    if all(name.lower() in SPLIT_ALIASES for name in labeled) or len(labeled) < 2:
        return
    if not set.intersection(*(set(classes[name]) for name in labeled)):
        raise DataError(
            f"splits must have classes in common, got none in {_listed(labeled)} of {root}; are these folders "
            f"classes? Then {KEEP_AS_CLASSES}; else give the same class the same name in each"
        )


def _duplicate_split(root: Path, split: str, splits: Mapping[str, SplitName]) -> str:
    names = " and ".join(f"{name}/" for name, other in splits.items() if other == split)
    return f"the {split} split must be one folder, got {names} in {root}; keep one of them"


def _listed(names: Iterable[str], most: int = 5) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return ", ".join(f"{name}/" for name in ordered[:most]) + more
