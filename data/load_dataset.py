"""Loading a data set: open, index, filter, find near-duplicates, split and audit."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from data.audit.checks import Examined
from data.dataset.dataset import Dataset, Sample
from data.dataset.filtering import screen
from data.dataset.image_index import Reading, read_all
from data.dataset.near_duplicates import find_twins
from data.dataset.split_store import remembered_splits
from data.dataset.splitting import Item, Placement, Shut, place
from data.errors import DataError
from data.parallel import Progress
from data.sources.base import SPLITS, LeftOut, Picture, Source
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
    readings = read_all(source.root, [picture.path for picture in source.pictures], progress)
    screened = screen(source, readings)
    twins = _twins(source, screened.usable, readings, progress)
    items = [_item(picture, readings) for picture in screened.usable]
    with remembered_splits(source.address) as remembered:
        placement = place(items, twins, remembered, keep_leaks)
        _check_splits(source, placement)
        remembered.update(placement.chosen)
    examined = Examined(source, readings, screened, twins, placement, keep_leaks)
    shut = [_shut(path, shut) for path, shut in placement.shut.items()]
    return Dataset(
        name=source.name,
        root=source.root,
        classes=source.classes,
        samples=_samples(source, items, placement),
        left_out=(*source.left_out, *screened.left_out, *shut),
        median_side=round(statistics.median(readings[path].short_side for path in placement.splits)),
        findings=examined.findings(),
    )


def _twins(
    source: Source, usable: Sequence[Picture], readings: Mapping[str, Reading], progress: Progress | None
) -> list[list[str]]:
    looks, paths = {}, {}
    for picture in usable:
        digest = str(readings[picture.path].digest)
        looks[digest], paths[digest] = readings[picture.path].look, source.root / picture.path
    return find_twins(looks, paths, progress)


def _item(picture: Picture, readings: Mapping[str, Reading]) -> Item:
    digest = str(readings[picture.path].digest)
    return Item(path=picture.path, digest=digest, label=picture.label, given=picture.split, group=picture.group)


def _check_splits(source: Source, placement: Placement) -> None:
    empty = [split for split in SPLITS if split not in placement.splits.values()]
    if empty:
        raise DataError(
            f"training, validation and test must each have a picture, got none for {' and '.join(empty)} "
            f"in {source.root} ({len(placement.shut)} are left out because they are tied to pictures on the other "
            "side); add pictures that are not, or give fewer splits or groups"
        )


def _shut(path: str, shut: Shut) -> LeftOut:
    reason = f"belongs together with {shut.other} of the {shut.split} split"
    if shut.why == "torn":
        reason = f"is new and belongs together with old pictures of two splits, such as {shut.other} of {shut.split}"
    return LeftOut(path=path, reason=reason, kind=shut.why)


def _samples(source: Source, items: Sequence[Item], placement: Placement) -> tuple[Sample, ...]:
    labels = {name: label for label, name in enumerate(source.classes)}
    samples = [
        Sample(path=item.path, label=labels[item.label], split=placement.splits[item.path], digest=item.digest)
        for item in items
        if item.path in placement.splits
    ]
    return tuple(sorted(samples, key=lambda sample: (SPLITS.index(sample.split), sample.digest, sample.path)))
