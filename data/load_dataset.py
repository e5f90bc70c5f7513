"""Loading a data set: open the source, index and filter images, find near-duplicates, assign splits, audit."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from data.audit.checks import AuditContext
from data.dataset.dataset import Dataset, Sample, in_order
from data.dataset.filtering import filter_images
from data.dataset.image_index import ImageInfo, index_images
from data.dataset.near_duplicates import find_near_duplicates
from data.dataset.splitting import Excluded, SplitAssignment, SplitItem, assign_splits, persisted_splits
from data.dataset.value_range import common_range
from data.errors import DataError
from data.parallel import ProgressCallback
from data.sources.base import SPLITS, DataSource, ImageFile, SkippedFile, SplitName
from data.sources.options import DataOptions
from data.sources.resolve import open_source
from data.text import pluralize

MAX_GROUP_FRACTION = 0.25  # of the images; a larger group of near-duplicates is reported and not tied
MIN_LARGE_GROUP = 10  # a group of up to this size is always tied


def load_dataset(
    data: str | DataOptions,
    progress: ProgressCallback | None = None,
    keep_leaks: bool = False,
    test_hashes: Collection[str] = (),
) -> Dataset:
    """Load a data set (see ``open_source``): read and check every image, and assign each to a split.

    Nothing in the user's folder is changed. With ``keep_leaks`` images of a provided training or validation split
    that match an image in a later split are kept; by default they are excluded. An image without a split whose content
    hash begins with one of ``test_hashes``, which have the same length, is assigned to the test split.

    Raises:
        DataError: the data set does not exist, or cannot be used for training.
    """
    options = DataOptions.model_construct(data=data) if isinstance(data, str) else data
    source = open_source(options, progress)
    image_index = index_images(source.root, [image.path for image in source.images], progress)
    filtered = filter_images(source, image_index)
    tied, untied = _find_near_duplicates(source, filtered.usable, image_index, options, progress)
    items = [
        SplitItem(**image.model_dump(), content_hash=str(image_index[image.path].content_hash))
        for image in filtered.usable
    ]
    with persisted_splits(source.uri) as persisted:
        assignment = assign_splits(items, tied, {**_test_splits(items, test_hashes), **persisted}, keep_leaks)
        _check_splits(source, filtered.usable, assignment)
        persisted.update(assignment.new_assignments)
    ranges = (image_index[path].value_range for path, split in assignment.splits.items() if split == "train")
    value_range = common_range(each for each in ranges if each)
    audit_context = AuditContext(source, image_index, filtered, tied, assignment, keep_leaks, untied, value_range)
    excluded = [_skipped(path, reason) for path, reason in assignment.excluded.items()]
    return Dataset(
        name=source.name,
        root=source.root,
        classes=source.classes,
        samples=_samples(source, items, assignment),
        skipped=(*source.skipped, *filtered.skipped, *excluded),
        median_short_side=round(statistics.median(image_index[path].short_side for path in assignment.splits)),
        value_range=value_range,
        findings=audit_context.findings(),
        layout=source.layout,
        provided_splits=tuple(split for split in SPLITS if any(image.split == split for image in source.images)),
    )


def _test_splits(items: Sequence[SplitItem], test_hashes: Collection[str]) -> dict[str, SplitName]:
    """Return the test split for the images whose content hash begins with one of the hashes."""
    known, length = set(test_hashes), len(next(iter(test_hashes), ""))
    return {item.content_hash: "test" for item in items if item.content_hash[:length] in known}


def _find_near_duplicates(
    source: DataSource,
    usable: Sequence[ImageFile],
    image_index: Mapping[str, ImageInfo],
    options: DataOptions,
    progress: ProgressCallback | None,
) -> tuple[list[list[str]], list[list[str]]]:
    """Return the groups that are kept in the same split, and those that are only reported.

    A group of more than a quarter of all images is no set of copies but, for example, the view of a fixed camera.
    """
    if options.near_duplicates == "off":
        return [], []
    phashes, paths = {}, {}
    for image in usable:
        content_hash = str(image_index[image.path].content_hash)
        phashes[content_hash], paths[content_hash] = image_index[image.path].phash, source.root / image.path
    groups = find_near_duplicates(phashes, paths, progress)
    if options.near_duplicates == "report":
        return [], groups
    max_size = max(MIN_LARGE_GROUP, len(paths) * MAX_GROUP_FRACTION)
    tied = [group for group in groups if len(group) <= max_size]
    return tied, [group for group in groups if len(group) > max_size]


def _check_splits(source: DataSource, images: Sequence[ImageFile], assignment: SplitAssignment) -> None:
    empty = [split for split in SPLITS if split not in assignment.splits.values()]
    if empty:
        num_excluded = len(assignment.excluded)
        cause = (
            f" ({pluralize(num_excluded, 'image')} excluded because they match an image in another split)"
            if num_excluded
            else ""
        )
        raise DataError(
            f"train, val and test must each have at least one image, got none for {' and '.join(empty)} in "
            f"{source.uri}{cause}; add images, or provide fewer splits or groups"
        )
    splits: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for image in images:
        splits[image.label][assignment.splits.get(image.path, "excluded")] += 1
    untrained = [
        f"{label} ({', '.join(f'{count:,} {split}' for split, count in splits[label].items())})"
        for label in source.classes
        if not splits[label]["train"]
    ]
    if untrained:
        raise DataError(
            f"every class must have a training image, got none for {', '.join(untrained)} in {source.uri}; "
            "add images of the class to the training split, or remove the class from the others"
        )


def _skipped(path: str, excluded: Excluded) -> SkippedFile:
    reason = f"matches {excluded.other} in the {excluded.split} split (duplicate, near-duplicate or same group)"
    if excluded.reason == "split_conflict":
        reason = f"is new and matches existing images in several splits, such as {excluded.other} in {excluded.split}"
    return SkippedFile(path=path, reason=reason, kind=excluded.reason)


def _samples(source: DataSource, items: Sequence[SplitItem], assignment: SplitAssignment) -> tuple[Sample, ...]:
    labels = {name: label for label, name in enumerate(source.classes)}
    samples = [
        Sample(
            path=item.path,
            label=labels[item.label],
            split=assignment.splits[item.path],
            content_hash=item.content_hash,
            group=assignment.groups.get(item.path, ""),
        )
        for item in items
        if item.path in assignment.splits
    ]
    return in_order(samples)
