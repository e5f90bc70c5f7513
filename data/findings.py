"""What an audit can find, in words."""

from __future__ import annotations

from typing import Literal, NamedTuple

from data.frozen_model import FrozenModel

FindingKind = Literal[
    "unreadable",
    "conflict",
    "duplicate",
    "near_duplicate",
    "near_conflict",
    "leak",
    "group_leak",
    "split_conflict",
    "class_missing",
    "imbalance",
    "similar_names",
    "tiny",
    "grayscale_stored_as_color",
    "missing",
    "unlabeled",
]


class FindingText(NamedTuple):
    """How a kind of finding is told."""

    title: str
    action: str


FINDING_TEXTS: dict[FindingKind, FindingText] = {
    "unreadable": FindingText("files that can't be read", "left out"),
    "conflict": FindingText("pictures that lie, pixel for pixel, in two classes", "left out of every split"),
    "near_conflict": FindingText(
        "pictures that are nearly the same, in two classes", "kept on one side of the split; check the labels"
    ),
    "leak": FindingText("pictures, the same or nearly, in two of the given splits", "left out of the earlier split"),
    "group_leak": FindingText(
        "pictures of a group that is in two of the given splits", "left out of the earlier split"
    ),
    "split_conflict": FindingText("new pictures tied to old ones in two splits", "left out"),
    "duplicate": FindingText("copies, pixel for pixel, in one class", "kept on one side of the split"),
    "near_duplicate": FindingText("pictures that are nearly the same", "kept on one side of the split"),
    "class_missing": FindingText(
        "classes without a picture in a split", "nothing can be done about it here; add pictures"
    ),
    "imbalance": FindingText("classes of very different size", "kept; class balance can be searched"),
    "similar_names": FindingText("class names that differ only by case or spaces", "kept as different classes"),
    "tiny": FindingText("pictures with a short side below 32 px", "kept, and not compared for being nearly the same"),
    "grayscale_stored_as_color": FindingText("gray pictures that are stored as color", "kept"),
    "missing": FindingText("files that the manifest names and that do not exist", "left out"),
    "unlabeled": FindingText("files that are no candidates", "left out"),
}


class Finding(FrozenModel):
    """One kind of problem, and every file that has it.

    Attributes:
        kind: of the problem.
        count: how many pictures (or classes) are concerned.
        files: paths relative to the data set's root, in groups that belong together; a file alone is a group of one.
        reasons: one for each group, in words that follow its name; empty where the kind says it all.
        detail: what else is to be said: names and numbers.
        done: what was done about it.
    """

    kind: FindingKind
    count: int
    files: tuple[tuple[str, ...], ...] = ()
    reasons: tuple[str, ...] = ()
    detail: str = ""
    action: str

    @property
    def title(self) -> str:
        """The kind in words."""
        return FINDING_TEXTS[self.kind].title
