"""Loaders of a trial's training and validation features, cached or computed.

A cache entry holds one view of every image of a split. It is created when an epoch first needs it, by one process while
others wait, from the images or from the deepest earlier entry. A full disk is not an error: features that can't be
cached are computed in every epoch, and the trial's runtime info reports it.

Shapes: b images in a batch; features are [b, ...].
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from data.atomic_write import DISK_FULL_ERRNOS
from data.cache.content_cache import ContentCache, size_limit_bytes
from data.dataset.dataset import Dataset
from data.dataset.stratified_parts import StratifiedParts, stratified_parts
from data.loading import pixel_cache
from data.loading.augmentation import augmentation_version
from data.loading.class_balance import Indices
from data.loading.pixel_cache import FoldPixels, PixelCache, SelectedPixels
from data.loading.views import (
    IDENTITY_VIEW,
    AugmentedView,
    FixedViewImages,
    GatherFn,
    JoinedSources,
    PartedSource,
    SampleSource,
    SegmentedSource,
    scatter,
    views_for,
)
from data.sources.base import SplitName
from models.backbones.pretrained_cache import pretrained
from models.classifier import Classifier
from models.features.caching_policy import BYTES_PER_ELEMENT, DISK_FULL, Precision, caching_plan
from models.features.feature_files import StoredFeatures, StridedTensor, get_cached, open_features, write_features
from models.features.frozen_prefix import ComputeOrigin, FrozenPrefix, chunks, run
from models.trial_config import TrialConfig

logger = logging.getLogger(__name__)

VERSION = 2  # of the computation and the format of entries
AUGMENTATION_LIBRARIES = ("albumentations", "opencv-python-headless")  # their versions can change a view's pixels
RESERVED_BYTES = 10**9  # left free for weights and logs: a tenth of the disk, at most this


class TrialFeatures:
    """The features of one trial's training and validation images; ``close`` it when the trial ends.

    Attributes:
        plan: precision of cached features, and number of views per training image.
    """

    def __init__(
        self,
        classifier: Classifier,
        config: TrialConfig,
        dataset: Dataset,
        pixels: PixelCache | FoldPixels,
        on_batch: Callable[[], None],
    ) -> None:
        """Plan the features of a trial, and set ``classifier.expects_features`` accordingly.

        ``dataset`` has its own splits also if ``pixels`` are those of a fold: a trial on a fold uses the features that
        other trials have cached, and computes those of the validation images in the training views. ``on_batch`` is
        called before every batch of features that is computed for the cache.
        """
        network, size = config.network, config.preprocessing.image_size
        base = pretrained(network.backbone, network.weights, size, config.seed)
        self._prefix = FrozenPrefix(classifier, base, network.truncate, network.head_features)
        self._config = config
        self._dataset = dataset
        self._pixels = pixels
        self._on_batch = on_batch
        elements_per_image, num_images = self._prefix.elements_per_image, config.num_used(len(dataset.split("train")))
        self.plan = caching_plan(config.features, config.batches, elements_per_image, num_images, size_limit_bytes())
        self._loaders: list[CachedFeatureLoader] = []
        # On a GPU, uncached features are computed as part of the forward pass; only on a CPU are fixed chunks needed
        # for results that are bit-identical to the cached ones.
        self._uses_features = self.plan.num_views > 0 and (
            self.plan.precision != "uncached" or classifier.device.type == "cpu"
        )
        classifier.expects_features = self._uses_features

    def loader(self, split: SplitName) -> SampleSource | None:
        """Return the source of a split's batches; None for images that are augmented differently in every epoch."""
        if self.plan.num_views == 0:
            return None
        views = self._train_views if split == "train" else (IDENTITY_VIEW,)
        pixels = self._pixels
        if not isinstance(pixels, FoldPixels):
            images_per_epoch = self._config.images_per_epoch if split == "train" else None
            labels = pixels.split(split)[1]
            if images_per_epoch and self._config.is_probe:  # those on fewer images have cached the first segments
                parts = StratifiedParts(labels, min(images_per_epoch, len(labels)))
                return SegmentedSource([(rows, self._source(pixels, split, views, rows)) for rows in parts.segments()])
            parts_of_epochs = stratified_parts(labels, images_per_epoch)
            if parts_of_epochs is None:
                return self._source(pixels, split, views)
            return PartedSource(parts_of_epochs, lambda rows: self._source(pixels, split, views, rows))
        splits: tuple[SplitName, SplitName] = ("train", "val")
        train, val = (self._source(pixels.pixels, each, views) for each in splits)
        return JoinedSources((train, val), len(self._dataset.split("train")), pixels.rows(split))

    def _source(
        self, cache: PixelCache, split: SplitName, views: tuple[AugmentedView, ...], rows: Indices | None = None
    ) -> SampleSource:
        """Return the source of the images of one of the data set's splits, or of some rows of them."""
        pixels = cache.split(split)[0]
        digests = [sample.content_hash for sample in self._dataset.split(split)]
        selected = pixels if rows is None else SelectedPixels(pixels, rows)
        if rows is not None:
            digests = [digests[row] for row in rows]
        images = FixedViewImages(selected, self._config.preprocessing, self._config.seed, views)
        if not self._uses_features:
            return images
        content = [digests, self._config.preprocessing.to_dict()]
        loader = CachedFeatureLoader(self._prefix, images, content, self.plan.precision, self._on_batch)
        self._loaders.append(loader)
        return loader

    @property
    def _train_views(self) -> tuple[AugmentedView, ...]:
        batches = self._config.batches
        return views_for(batches.augmentation, batches.balance, self._config.features.cached_augmentations)

    def runtime_info(self) -> dict[str, str | int | float]:
        """Return the features' precision and number of views, as known so far."""
        disk_is_full = any(loader.disk_is_full for loader in self._loaders)
        precision = DISK_FULL if disk_is_full else self.plan.precision
        return {"features": precision, "views_shown": self.plan.num_views}

    def close(self) -> None:
        """Release the cache entries that this process uses."""
        for loader in self._loaders:
            loader.close()


class CachedFeatureLoader:
    """The features of one split's images, as a source of batches."""

    def __init__(
        self,
        prefix: FrozenPrefix,
        images: FixedViewImages,
        content: object,
        precision: Precision,
        on_batch: Callable[[], None],
    ) -> None:
        """Take the frozen prefix, a split's images in their views, and a JSON value that identifies the images.

        ``on_batch`` is called before every batch that is computed for the cache, and while another process computes.
        """
        self.disk_is_full = False
        self._prefix = prefix
        self._images = images
        self._content = content
        self._precision: Precision = precision
        self._on_batch = on_batch
        self._cache = ContentCache()
        self._views: dict[int, StoredFeatures] = {}
        self._keys: list[str] = []

    def epoch(self, number: int) -> GatherFn:
        """Return the function that gathers an epoch's batches, float32 [b, ...]."""
        return lambda rows, repeat: self._features(rows, self._images.view_indices(number, repeat))

    def close(self) -> None:
        """Release the cache entries of this loader, so that they can be evicted."""
        with contextlib.suppress(OSError):  # on a full disk; the cache releases them when this process has ended
            for key in self._keys:
                self._cache.release(key)
        self._keys = []

    def _features(self, rows: Indices, view_indices: Indices) -> Tensor:
        parts: list[tuple[Indices, StridedTensor]] = []
        for view_index in np.unique(view_indices):
            stored, positions = self._stored_view(int(view_index)), np.flatnonzero(view_indices == view_index)
            if stored is None:
                return self._prefix.compute(self._images.images(rows, view_indices))
            parts.append((positions, stored.rows(rows[positions])))
        joined = scatter([(positions, part.values) for positions, part in parts])
        return parts[0][1]._replace(values=joined).unpacked

    # --- entries ---

    def _stored_view(self, view_index: int) -> StoredFeatures | None:
        """Return the features of all images in one view, or None if they aren't cached."""
        if view_index not in self._views and self._precision != "uncached" and not self.disk_is_full:
            try:
                self._views[view_index] = self._open_or_compute(view_index)
            except OSError as error:
                if error.errno not in DISK_FULL_ERRNOS:
                    raise
                self.disk_is_full = True
                logger.warning("the disk is full: frozen blocks are computed in every epoch of this trial (%s)", error)
        return self._views.get(view_index)

    def _open_or_compute(self, view_index: int) -> StoredFeatures:
        key = self._key(view_index, self._prefix.fingerprint, self._precision)
        folder = self._cache.root / key
        cached = get_cached(folder)
        if cached:
            return cached
        self._keys.append(key)
        self._cache.get_or_create(key, lambda entry_folder: self._compute(entry_folder, view_index), self._on_batch)
        return open_features(folder)

    def _key(self, view_index: int, fingerprint: str, precision: Precision) -> str:
        view = self._images.views[view_index]
        # An augmented view depends on the augmentation's name, on our version of it, and on the libraries.
        versions: list[object] = []
        if view != IDENTITY_VIEW:
            versions = [
                *augmentation_version(view.augmentation),
                *map(importlib.metadata.version, AUGMENTATION_LIBRARIES),
            ]
        computed = [self._prefix.device.type, *(["bf16"] if self._prefix.precision == "bf16" else [])]
        settings = json.dumps([VERSION, pixel_cache.VERSION, *computed, self._content, view, versions])
        return f"features/{hashlib.blake2b(settings.encode(), digest_size=16).hexdigest()}/{fingerprint}-{precision}"

    def _compute(self, folder: Path, view_index: int) -> None:
        self._check_disk_space(folder)
        stored = self._stored_origin(view_index)
        module = self._prefix.module_from(stored.origin) if stored else self._prefix.module

        def compute() -> Iterator[Tensor]:
            for rows in chunks(len(self._images)):
                self._on_batch()
                x = (
                    stored.features.rows(rows).unpacked
                    if stored
                    else self._images.images(rows, np.full_like(rows, view_index))
                )
                yield run(module, x, self._prefix.device, self._prefix.precision)

        try:
            write_features(folder, compute, len(self._images), is_fp16=self._precision == "fp16")
        finally:
            if stored:
                self._cache.release(stored.key)

    def _check_disk_space(self, folder: Path) -> None:
        disk = shutil.disk_usage(folder)
        needed = len(self._images) * self._prefix.elements_per_image * BYTES_PER_ELEMENT[self._precision]
        if disk.free - needed < min(RESERVED_BYTES, disk.total // 10):
            raise OSError(errno.ENOSPC, f"{needed} bytes are needed, {disk.free} are free", str(folder))

    def _stored_origin(self, view_index: int) -> _StoredOrigin | None:
        """Return the deepest earlier entry in the cache; fp32 entries are only derived from fp32 entries."""
        precisions: tuple[Precision, ...] = ("fp32", "fp16") if self._precision == "fp16" else ("fp32",)
        for origin in self._prefix.origins:
            for precision in precisions:
                key = self._key(view_index, origin.fingerprint, precision)
                folder = self._cache.get(key)
                if folder:
                    return _StoredOrigin(origin, key, open_features(folder))
        return None


class _StoredOrigin(NamedTuple):
    """A cache entry that another one is computed from: its origin in the network, its key, and its array."""

    origin: ComputeOrigin
    key: str
    features: StoredFeatures
