"""Filtering: drop unreadable images and images that occur in more than one class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from data.dataset.image_index import ImageInfo
from data.errors import DataError
from data.sources.base import DataSource, ImageFile, SkippedFile
from data.text import pluralize

MIN_IMAGES_PER_CLASS = 3  # distinct images: one for each split


class FilteredImages(NamedTuple):
    """The usable images, the skipped files, and the label conflicts as groups of paths with identical content."""

    usable: list[ImageFile]
    skipped: list[SkippedFile]
    conflicts: list[list[str]]


def filter_images(source: DataSource, image_index: Mapping[str, ImageInfo]) -> FilteredImages:
    """Drop unreadable images, and all copies of images that occur in more than one class.

    Raises:
        DataError: no image is readable, or a class has fewer than ``MIN_IMAGES_PER_CLASS`` distinct usable images.
    """
    unreadable = [
        SkippedFile(path=image.path, reason=info.problem, kind="unreadable")
        for image in source.images
        if (info := image_index[image.path]).problem
    ]
    conflicts = _conflicts(source, image_index)
    labels = {image.path: image.label for image in source.images}
    skipped = unreadable + [_conflict(path, group, labels) for group in conflicts for path in group]
    skipped_paths = {file.path for file in skipped}
    usable = [image for image in source.images if image.path not in skipped_paths]
    _check(source, usable, image_index, [*skipped, *source.skipped])
    return FilteredImages(usable, skipped, conflicts)


def _conflicts(source: DataSource, image_index: Mapping[str, ImageInfo]) -> list[list[str]]:
    labels_by_hash: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for image in source.images:
        if content_hash := image_index[image.path].content_hash:
            labels_by_hash[content_hash][image.path] = image.label
    return [list(labels) for labels in labels_by_hash.values() if len(set(labels.values())) > 1]


def _conflict(path: str, group: Sequence[str], labels: Mapping[str, str]) -> SkippedFile:
    other = next(other for other in group if labels[other] != labels[path])
    return SkippedFile(path=path, reason=f"is identical to {other}, which has a different label", kind="conflict")


def _check(
    source: DataSource,
    usable: Sequence[ImageFile],
    image_index: Mapping[str, ImageInfo],
    skipped: Sequence[SkippedFile],
) -> None:
    if all(image_index[image.path].problem for image in source.images):
        raise DataError(
            f"data must contain readable images, got none among {pluralize(len(source.images), 'file')} in "
            f"{source.uri}{_example(skipped)}; check the contents of the folder"
        )
    content_hashes: defaultdict[str, set[str | None]] = defaultdict(set)
    for image in usable:
        content_hashes[image.label].add(image_index[image.path].content_hash)
    counts = {label: len(content_hashes[label]) for label in source.classes}
    too_small = [f"{label} ({count})" for label, count in counts.items() if count < MIN_IMAGES_PER_CLASS]
    if too_small:
        raise DataError(
            f"every class must have at least {MIN_IMAGES_PER_CLASS} distinct readable images that appear in no "
            f"other class, got fewer in {source.uri}: {', '.join(too_small)}{_example(skipped)}; "
            "add images, or remove these classes"
        )


def _example(skipped: Sequence[SkippedFile]) -> str:
    return f" ({len(skipped)} skipped, such as {skipped[0].path}: {skipped[0].reason})" if skipped else ""
