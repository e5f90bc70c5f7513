"""Loading a data set: open, index, filter, find near-duplicates, split and audit."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from data.audit.checks import AuditContext
from data.dataset.dataset import Dataset, Sample
from data.dataset.filtering import filter_images
from data.dataset.image_index import ImageInfo, index_images
from data.dataset.near_duplicates import find_near_duplicates
from data.dataset.split_store import persisted_splits
from data.dataset.splitting import Excluded, SplitAssignment, SplitItem, assign_splits
from data.errors import DataError
from data.parallel import Progress
from data.sources.base import SPLITS, DataSource, ImageFile, SkippedFile
from data.sources.resolve import open_source


def load_dataset(data: str, progress: Progress | None = None, keep_leaks: bool = False) -> Dataset:
    """Open what ``data`` names, read every picture, look for trouble, and place each picture in a split.

    ``progress(what, done, of)`` is called as pictures are read. Nothing in the user's folder is changed.
    A picture of a given training or validation split that is tied to one in a later split is left out of the
    earlier one, unless ``keep_leaks``.

    Raises:
        DataError: there is no such data set, or nothing can be learned from it.
    """
    source = open_source(data, progress)
    readings = index_images(source.root, [picture.path for picture in source.images], progress)
    screened = filter_images(source, readings)
    twins = _find_near_duplicates(source, screened.usable, readings, progress)
    items = [_split_item(picture, readings) for picture in screened.usable]
    with persisted_splits(source.uri) as remembered:
        placement = assign_splits(items, twins, remembered, keep_leaks)
        _check_splits(source, placement)
        remembered.update(placement.new_assignments)
    examined = AuditContext(source, readings, screened, twins, placement, keep_leaks)
    shut = [_skipped(path, shut) for path, shut in placement.excluded.items()]
    return Dataset(
        name=source.name,
        root=source.root,
        classes=source.classes,
        samples=_samples(source, items, placement),
        skipped=(*source.skipped, *screened.skipped, *shut),
        median_short_side=round(statistics.median(readings[path].short_side for path in placement.splits)),
        findings=examined.findings(),
    )


def _find_near_duplicates(
    source: DataSource, usable: Sequence[ImageFile], readings: Mapping[str, ImageInfo], progress: Progress | None
) -> list[list[str]]:
    looks, paths = {}, {}
    for picture in usable:
        digest = str(readings[picture.path].content_hash)
        looks[digest], paths[digest] = readings[picture.path].phash, source.root / picture.path
    return find_near_duplicates(looks, paths, progress)


def _split_item(picture: ImageFile, readings: Mapping[str, ImageInfo]) -> SplitItem:
    digest = str(readings[picture.path].content_hash)
    return SplitItem(
        path=picture.path, content_hash=digest, label=picture.label, given_split=picture.split, group=picture.group
    )


def _check_splits(source: DataSource, placement: SplitAssignment) -> None:
    empty = [split for split in SPLITS if split not in placement.splits.values()]
    if empty:
        raise DataError(
            f"training, validation and test must each have a picture, got none for {' and '.join(empty)} "
            f"in {source.root} ({len(placement.excluded)} are left out because they are tied to pictures on the other "
            "side); add pictures that are not, or give fewer splits or groups"
        )


def _skipped(path: str, shut: Excluded) -> SkippedFile:
    reason = f"belongs together with {shut.other} of the {shut.split} split"
    if shut.reason == "split_conflict":
        reason = f"is new and belongs together with old pictures of two splits, such as {shut.other} of {shut.split}"
    return SkippedFile(path=path, reason=reason, kind=shut.reason)


def _samples(source: DataSource, items: Sequence[SplitItem], placement: SplitAssignment) -> tuple[Sample, ...]:
    labels = {name: label for label, name in enumerate(source.classes)}
    samples = [
        Sample(
            path=item.path, label=labels[item.label], split=placement.splits[item.path], content_hash=item.content_hash
        )
        for item in items
        if item.path in placement.splits
    ]
    return tuple(sorted(samples, key=lambda sample: (SPLITS.index(sample.split), sample.content_hash, sample.path)))
