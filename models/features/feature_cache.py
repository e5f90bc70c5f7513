"""What training and validation are shown where blocks are frozen: features, kept or computed.

An entry holds one view of every picture of a split. It is made when an epoch first needs it, by one process while
others wait, from the pictures or from the deepest entry that lies before it. A full disk is no failure: what can't be
kept is computed in every epoch, and the trial's facts say so.

Shapes: b pictures, n pictures in all; features are [b, ...].
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.atomic_write import DISK_FULL_ERRNOS
from data.cache.content_cache import ContentCache, size_limit_bytes
from data.loading import augmentation, pixel_cache
from data.loading.class_balance import Indices
from data.loading.pixel_cache import PixelCache
from data.loading.views import IDENTITY_VIEW, FixedViewImages, GatherFn, views_for
from data.sources.base import SplitName
from models.backbones.pretrained_cache import pretrained
from models.classifier import Classifier
from models.features.caching_policy import BYTES_PER_ELEMENT, DISK_FULL, Precision, caching_plan
from models.features.feature_files import StoredFeatures, StridedTensor, get_cached, open_features, write_features
from models.features.frozen_prefix import ComputeOrigin, FrozenPrefix, chunks, run

if TYPE_CHECKING:
    from data.dataset.dataset import Dataset
    from models.trial_config import TrialConfig

logger = logging.getLogger(__name__)

VERSION = 1  # of what is kept and how it is computed
AUGMENTING = ("albumentations", "opencv-python-headless")  # the distributions that change a view's pixels
RESERVED_BYTES = 10**9  # bytes that are left free for weights and logs: a tenth of the disk, but no more than this


class TrialFeatures:
    """The features of one trial's training and validation pictures; ``close`` it when the trial is over.

    Attributes:
        plan: what is kept, and how many views of a training picture there are.
    """

    def __init__(self, classifier: Classifier, config: TrialConfig, dataset: Dataset, pixels: PixelCache) -> None:
        """Take a classifier as ``config`` builds it, and the data set with its pixels.

        The classifier takes features from now on, if there will be any.
        """
        network, size = config.network, config.preprocessing.image_size
        pristine = pretrained(network.backbone, network.weights, size, config.seed)
        self._prefix = FrozenPrefix(classifier, pristine, network.truncate, network.head_features)
        self._config = config
        self._dataset = dataset
        self._pixels = pixels
        numbers, pictures = self._prefix.elements_per_image, len(dataset.split("train"))
        self.plan = caching_plan(config.features, config.batches, numbers, pictures, size_limit_bytes())
        self._loaders: list[CachedFeatureLoader] = []
        # On a GPU what isn't kept is better computed where it is used, and batches have their own last bits anyway.
        self._takes_features = self.plan.views > 0 and (
            self.plan.precision != "uncached" or classifier.device.type == "cpu"
        )
        classifier.expects_features = self._takes_features

    def loader(self, split: SplitName) -> CachedFeatureLoader | FixedViewImages | None:
        """Return what the rows of a split turn into; None for its pictures, in training augmented anew."""
        if self.plan.views == 0:
            return None
        pictures = self._images(split)
        if not self._takes_features:
            return pictures
        digests = [sample.content_hash for sample in self._dataset.split(split)]
        content = [digests, self._config.preprocessing.to_dict()]
        source = CachedFeatureLoader(self._prefix, pictures, content, self.plan.precision)
        self._loaders.append(source)
        return source

    def _images(self, split: SplitName) -> FixedViewImages:
        batches, count = self._config.batches, self._config.features.cached_augmentations
        views = views_for(batches.augmentation, batches.balance, count) if split == "train" else (IDENTITY_VIEW,)
        return FixedViewImages(self._pixels.split(split)[0], self._config.preprocessing, self._config.seed, views)

    def runtime_info(self) -> dict[str, str | int | float]:
        """Return what is known of the trial's features by now."""
        full = any(source.disk_is_full for source in self._loaders)
        return {"features": DISK_FULL if full else self.plan.precision, "views_shown": self.plan.views}

    def close(self) -> None:
        """Say that this process no longer needs the entries."""
        for source in self._loaders:
            source.close()


class CachedFeatureLoader:
    """The features of one split's pictures, as a source of batches."""

    def __init__(self, prefix: FrozenPrefix, pictures: FixedViewImages, content: object, kept: Precision) -> None:
        """Take what says which pictures these are, as JSON has it; with ``kept`` live, nothing is kept."""
        self.disk_is_full = False
        self._prefix = prefix
        self._images = pictures
        self._content = content
        self._precision: Precision = kept
        self._store = ContentCache()
        self._stored: dict[int, StoredFeatures] = {}
        self._keys: list[str] = []

    def epoch(self, number: int) -> GatherFn:
        """Return what gives float32 [b, ...]."""
        return lambda rows, again: self._features(rows, self._images.view_indices(number, again))

    def close(self) -> None:
        """Let the store throw out what this source has used."""
        with contextlib.suppress(OSError):  # on a full disk; the store sees it when this process has ended
            for key in self._keys:
                self._store.release(key)
        self._keys = []

    def _features(self, rows: Indices, shown: Indices) -> Tensor:
        parts: list[tuple[Indices, StridedTensor]] = []
        for which in np.unique(shown):
            view, places = self._view(int(which)), np.flatnonzero(shown == which)
            if view is None:
                return self._prefix.compute(self._images.images(rows, shown))
            parts.append((places, view.rows(rows[places])))
        return _scatter(parts).unpacked

    # --- entries ---

    def _view(self, which: int) -> StoredFeatures | None:
        """Return the features of all pictures in one view, or None where they aren't kept."""
        if which not in self._stored and self._precision != "uncached" and not self.disk_is_full:
            try:
                self._stored[which] = self._open_or_compute(which)
            except OSError as error:
                if error.errno not in DISK_FULL_ERRNOS:
                    raise
                self.disk_is_full = True
                logger.warning("the disk is full: frozen blocks are computed in every epoch of this trial (%s)", error)
        return self._stored.get(which)

    def _open_or_compute(self, which: int) -> StoredFeatures:
        key = self._key(which, self._prefix.name, self._precision)
        folder, index = self._store.root / key, self._prefix.index
        known = get_cached(folder, index)
        if known:
            return known
        self._keys.append(key)
        self._store.get_or_create(key, lambda made: self._compute(made, which))
        return open_features(folder, index)

    def _key(self, which: int, name: str, kept: Precision) -> str:
        view = self._images.views[which]
        # What a policy does is decided by its name, our version of it, and the libraries.
        policy = [] if view == IDENTITY_VIEW else [augmentation.VERSION, *map(importlib.metadata.version, AUGMENTING)]
        settings = json.dumps([VERSION, pixel_cache.VERSION, self._prefix.device.type, self._content, view, policy])
        return f"features/{hashlib.blake2b(settings.encode(), digest_size=16).hexdigest()}/{name}-{kept}"

    def _compute(self, folder: Path, which: int) -> None:
        self._check_room(folder)
        start = self._origin(which)
        module = self._prefix.module_from(start.at) if start else self._prefix.module()

        def compute() -> Iterator[tuple[Tensor, ...]]:
            for rows in chunks(len(self._images)):
                x = start.stored.rows(rows).unpacked if start else self._images.images(rows, rows * 0 + which)
                yield run(module, x, self._prefix.device)

        try:
            write_features(folder, compute, len(self._images), is_fp16=self._precision == "fp16")
        finally:
            if start:
                self._store.release(start.key)

    def _check_room(self, folder: Path) -> None:
        disk = shutil.disk_usage(folder)
        needed = len(self._images) * self._prefix.cached_elements_per_image * BYTES_PER_ELEMENT[self._precision]
        if disk.free - needed < min(RESERVED_BYTES, disk.total // 10):
            raise OSError(errno.ENOSPC, f"{needed} bytes are needed, {disk.free} are free", str(folder))

    def _origin(self, which: int) -> _StoredOrigin | None:
        """Return the deepest entry that lies before ours; what is exact is made of what is exact only."""
        precisions: tuple[Precision, ...] = ("fp32", "fp16") if self._precision == "fp16" else ("fp32",)
        for at in self._prefix.origins:
            for kept in precisions:
                key = self._key(which, at.name, kept)
                folder = self._store.get(key)
                if folder:
                    return _StoredOrigin(at, key, open_features(folder, 0))
        return None


def _scatter(parts: list[tuple[Indices, StridedTensor]]) -> StridedTensor:
    """Return the parts of a batch together, each value in its place [b]."""
    (_, first), *others = parts
    if not others:
        return first
    values = torch.empty((sum(len(places) for places, _ in parts), *first.values.shape[1:]))
    for places, part in parts:
        values[torch.from_numpy(places)] = part.values
    return first._replace(values=values)


class _StoredOrigin(NamedTuple):
    """An entry that another one is made from: where in the network, its key, and its only array."""

    at: ComputeOrigin
    key: str
    stored: StoredFeatures
