"""Loading labeled images to measure a model on them, without the rules of training."""

from __future__ import annotations

import statistics

from data.dataset.dataset import Dataset, Sample, in_order
from data.dataset.image_index import index_images
from data.dataset.splitting import persisted_splits
from data.errors import DataError
from data.parallel import ProgressCallback
from data.sources.base import SPLITS, SkippedFile
from data.sources.options import DataOptions, LabeledImagesOptions
from data.sources.resolve import open_source
from data.text import pluralize


def load_labeled_images(options: DataOptions, progress: ProgressCallback | None = None) -> Dataset:
    """Return all readable images of a data set: also few images, one class, and duplicates.

    An image that no split provides and that no search has split is a test image. Classes without images are left out.

    Raises:
        DataError: the data set does not exist, or no image is readable.
    """
    source = open_source(LabeledImagesOptions(**options.model_dump(include=set(DataOptions.model_fields))), progress)
    index = index_images(source.root, [image.path for image in source.images], progress)
    usable = [image for image in source.images if not index[image.path].problem]
    unreadable = [
        SkippedFile(path=image.path, reason=index[image.path].problem, kind="unreadable")
        for image in source.images
        if index[image.path].problem
    ]
    if not usable:
        example = f"; for example, {unreadable[0].path} {unreadable[0].reason}" if unreadable else ""
        raise DataError(
            f"data must contain readable images, got none among {pluralize(len(source.images), 'file')} in "
            f"{source.uri}{example}; check the contents of the folder"
        )
    classes = tuple(sorted({image.label for image in usable}))
    with persisted_splits(source.uri) as persisted:
        splits = dict(persisted)
    samples = []
    for image in usable:
        content_hash = str(index[image.path].content_hash)
        split = image.split or splits.get(content_hash, "test")
        label = classes.index(image.label)
        samples.append(Sample(path=image.path, label=label, split=split, content_hash=content_hash))
    return Dataset(
        name=source.name,
        root=source.root,
        classes=classes,
        samples=in_order(samples),
        skipped=(*source.skipped, *unreadable),
        median_short_side=round(statistics.median(index[image.path].short_side for image in usable)),
        provided_splits=tuple(split for split in SPLITS if any(image.split == split for image in source.images)),
    )
