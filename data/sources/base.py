"""The values that every kind of source gives."""

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
    "test": "test",
    "testing": "test",
}


class ImageFile(FrozenModel):
    """A file that claims to be a picture.

    Attributes:
        path: relative to the source's root, with ``/``.
        label: name of its class.
        split: the split that the user put it in, if any.
        group: what it shares with others that must be on the same side: a person, a video; if any.
    """

    path: str
    label: str
    split: SplitName | None = None
    group: str | None = None


class SkippedFile(FrozenModel):
    """A file that is in no split, and why: in words that follow its name, and as a kind of finding."""

    path: str
    reason: str
    kind: FindingKind = "unlabeled"


class DataSource(FrozenModel):
    """Labelled files on this machine; nothing has been opened yet.

    Attributes:
        name: of the data set: letters, digits, ``- _ .``.
        address: what tells it from others, now and when it has grown: an absolute path, an address, or ``demo``.
        root: absolute folder that all paths are relative to.
        classes: every class that was announced, also one without a file; sorted.
        pictures: sorted by path.
        left_out: what is no candidate (broken links, files outside the class folders).
    """

    name: str
    uri: str
    root: Path
    classes: tuple[str, ...]
    images: tuple[ImageFile, ...]
    skipped: tuple[SkippedFile, ...] = ()

    @property
    def given_splits(self) -> tuple[SplitName, ...]:
        """The splits that the user made, in the order train, val, test; empty where all are ours to make."""
        given = {picture.split for picture in self.images}
        return tuple(name for name in SPLITS if name in given)


def to_utf8(name: str) -> str:
    """Return a file's name as text that can be written as UTF-8, whatever bytes it is made of."""
    return os.fsencode(name).decode("utf-8", "replace")


def is_plain(name: str) -> bool:
    """Return whether a file's name is valid UTF-8."""
    return to_utf8(name) == name


def valid_name(text: str) -> str:
    """Return ``text`` as a name that MLflow's registry, a folder and a URL all take."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", plain).strip("-.") or "data"
