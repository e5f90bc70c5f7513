"""The kinds of problems that an audit reports, and their texts."""

from __future__ import annotations

from typing import Literal, NamedTuple

from data.frozen_model import FrozenModel
from data.text import pluralize

FindingKind = Literal[
    "unreadable",
    "conflict",
    "duplicate",
    "near_duplicate",
    "near_duplicate_untied",
    "near_conflict",
    "label_issue",
    "leak",
    "group_leak",
    "split_conflict",
    "class_missing",
    "imbalance",
    "similar_names",
    "shortcut",
    "tiny",
    "uniform",
    "few_levels",
    "pages",
    "grayscale_stored_as_color",
    "missing",
    "unlabeled",
]


class FindingText(NamedTuple):
    """The texts of a kind: its title, for one as well, and the action that Freezeline took or the user should take."""

    title: str
    one: str
    action: str


FINDING_TEXTS: dict[FindingKind, FindingText] = {
    "unreadable": FindingText("unreadable files", "unreadable file", "skipped"),
    "conflict": FindingText(
        "images that occur with different labels", "image that occurs with different labels", "excluded from all splits"
    ),
    "near_conflict": FindingText(
        "images with a near-duplicate of another label",
        "image with a near-duplicate of another label",
        "kept in the same split unless you provide their splits; check the labels",
    ),
    "label_issue": FindingText(
        "images whose label is probably wrong",
        "image whose label is probably wrong",
        "excluded from training and validation (on_label_issue=drop)",
    ),
    "leak": FindingText(
        "images with a duplicate or near-duplicate in another provided split",
        "image with a duplicate or near-duplicate in another provided split",
        "excluded from the earlier split",
    ),
    "group_leak": FindingText(
        "images whose group spans several provided splits",
        "image whose group spans several provided splits",
        "excluded from all but the last of these splits",
    ),
    "split_conflict": FindingText(
        "new images that match existing images in several splits",
        "new image that matches existing images in several splits",
        "skipped",
    ),
    "duplicate": FindingText(
        "images with an exact duplicate in their class",
        "image with an exact duplicate in its class",
        "kept in the same split",
    ),
    "near_duplicate": FindingText(
        "images with a near-duplicate", "image with a near-duplicate", "kept in the same split"
    ),
    "near_duplicate_untied": FindingText(
        "images that look alike and may be in different splits",
        "image that looks like another and may be in a different split",
        "not kept together (near_duplicates=report, or more than a quarter of all images); if they are views of one "
        "object, pass a table with the column group",
    ),
    "class_missing": FindingText("classes without images in a split", "class without images in a split", "add images"),
    "imbalance": FindingText("imbalanced classes", "imbalanced class", "kept; consider the option balance"),
    "similar_names": FindingText(
        "class names that differ only in case or separators",
        "class name that differs only in case or separators",
        "kept as separate classes",
    ),
    "shortcut": FindingText(
        "properties of files that tell the class",
        "property of files that tells the class",
        "kept; a model may learn them instead of what images show: take those of all classes from the same sources",
    ),
    "tiny": FindingText(
        "images with a short side below 32 px",
        "image with a short side below 32 px",
        "kept; not checked for near-duplicates",
    ),
    "uniform": FindingText("images of a single color", "image of a single color", "kept; check the files"),
    "few_levels": FindingText(
        "images of more than 8 bits with few gray levels",
        "image of more than 8 bits with few gray levels",
        "kept; they use a small part of the data set's range, so scale all images to 8 bits yourself",
    ),
    "pages": FindingText("TIFF files with several pages", "TIFF file with several pages", "the first page is used"),
    "grayscale_stored_as_color": FindingText(
        "grayscale images stored as color", "grayscale image stored as color", "kept"
    ),
    "missing": FindingText(
        "files listed in the manifest that do not exist", "file listed in the manifest that does not exist", "skipped"
    ),
    "unlabeled": FindingText(
        "files without a class or not usable as images", "file without a class or not usable as an image", "skipped"
    ),
}


class Finding(FrozenModel):
    """One kind of problem, with all affected files.

    Attributes:
        kind: the kind of problem.
        count: number of affected images (or classes).
        files: paths relative to the root of the data set, grouped: duplicates form one group, other files one each.
        reasons: the reason for each group, to be printed after the path; empty if the title is enough.
        detail: names and numbers, for findings that are not about single files.
        action: what Freezeline did about the problem, or what the user should do.
    """

    kind: FindingKind
    count: int
    files: tuple[tuple[str, ...], ...] = ()
    reasons: tuple[str, ...] = ()
    detail: str = ""
    action: str

    @property
    def title(self) -> str:
        """The title of the kind."""
        return FINDING_TEXTS[self.kind].title

    @property
    def is_grouped(self) -> bool:
        """Whether an element of ``files`` is a group of related images rather than a single file."""
        return any(len(group) > 1 for group in self.files)

    @property
    def headline(self) -> str:
        """The number of affected images (or classes) with the title, and the number of their groups."""
        title = FINDING_TEXTS[self.kind].one if self.count == 1 else self.title
        groups = f" ({pluralize(len(self.files), 'group')})" if self.is_grouped else ""
        return f"{self.count:,} {title}{groups}"
