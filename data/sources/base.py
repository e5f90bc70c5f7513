"""The values that every kind of source gives."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Literal

from data.values import Value

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


class Picture(Value):
    """A file that claims to be a picture.

    Attributes:
        path: relative to the source's root, with ``/``.
        label: name of its class.
        split: the split that the user put it in, if any.
    """

    path: str
    label: str
    split: SplitName | None = None


class LeftOut(Value):
    """A file that is in no split, and why."""

    path: str
    reason: str


class Source(Value):
    """Labelled files on this machine; nothing has been opened yet.

    Attributes:
        name: of the data set: letters, digits, ``- _ .``.
        root: absolute folder that all paths are relative to.
        classes: every class that was announced, also one without a file; sorted.
        pictures: sorted by path.
        left_out: what is no candidate (broken links, files outside the class folders).
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    pictures: tuple[Picture, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def given_splits(self) -> tuple[SplitName, ...]:
        """The splits that the user made, in the order train, val, test; empty where all are ours to make."""
        given = {picture.split for picture in self.pictures}
        return tuple(name for name in SPLITS if name in given)


def valid_name(text: str) -> str:
    """Return ``text`` as a name that MLflow's registry, a folder and a URL all take."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", plain).strip("-.") or "data"
