"""Data sources: labeled files that have not been read yet."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import Literal

from data.findings import FindingKind
from data.frozen_model import FrozenModel

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
SPLIT_ALIASES: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "validate": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
    "holdout": "test",
}


class ImageFile(FrozenModel):
    """A file that may be an image: its path (relative to the root, with ``/``), class, and provided split, if any.

    Images with the same ``group``, such as a person or a video, must be in the same split.
    """

    path: str
    label: str
    split: SplitName | None = None
    group: str | None = None


class SkippedFile(FrozenModel):
    """A file or folder that is in no split, with the reason (to be printed after its name) and the kind of finding."""

    path: str
    reason: str
    num_files: int = 1
    kind: FindingKind = "unlabeled"


class DataSource(FrozenModel):
    """Labeled files on this machine.

    Attributes:
        name: name of the data set: letters, digits, ``- _ .``.
        uri: identity of the data set, unchanged when images are added: an absolute path, a URI, or ``demo``.
        root: absolute folder that all paths are relative to.
        classes: all class names, including empty classes; sorted.
        images: sorted by path.
        skipped: files that cannot be images of a class (broken links, files outside the class folders).
        layout: what was understood of the layout, one line each.
    """

    name: str
    uri: str
    root: Path
    classes: tuple[str, ...]
    images: tuple[ImageFile, ...]
    skipped: tuple[SkippedFile, ...] = ()
    layout: tuple[str, ...] = ()


def to_utf8(name: str) -> str:
    """Return a file name with all bytes that are not valid UTF-8 replaced."""
    return os.fsencode(name).decode("utf-8", "replace")


def is_utf8(name: str) -> bool:
    """Return whether a file name is valid UTF-8."""
    return to_utf8(name) == name


def valid_name(text: str) -> str:
    """Convert ``text`` to a name that is valid in the MLflow registry, in a path and in a URL."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", ascii_text).strip("-.") or "data"
