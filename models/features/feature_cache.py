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

from data.atomic_write import NO_ROOM
from data.cache.content_cache import Store, limit_bytes
from data.loading import augmentation, pixel_cache
from data.loading.class_balance import Rows
from data.loading.pixel_cache import PixelCache
from data.loading.views import PLAIN, Take, ViewedPictures, views_of
from data.sources.base import SplitName
from models.backbones.pretrained_cache import prepared
from models.classifier import Classifier
from models.features.caching_policy import BYTES, DISK_FULL, Kept, plan
from models.features.feature_files import Packed, Stored, opened, remembered, write
from models.features.frozen_prefix import FrozenPrefix, Start, in_chunks, run

if TYPE_CHECKING:
    from data.dataset.dataset import Dataset
    from models.trial_config import TrialConfig

logger = logging.getLogger(__name__)

VERSION = 1  # of what is kept and how it is computed
AUGMENTING = ("albumentations", "opencv-python-headless")  # the distributions that change a view's pixels
MOST_RESERVED = 10**9  # bytes that are left free for weights and logs: a tenth of the disk, but no more than this


class FrozenFeatures:
    """The features of one trial's training and validation pictures; ``close`` it when the trial is over.

    Attributes:
        plan: what is kept, and how many views of a training picture there are.
    """

    def __init__(self, classifier: Classifier, config: TrialConfig, dataset: Dataset, pixels: PixelCache) -> None:
        """Take a classifier as ``config`` builds it, and the data set with its pixels.

        The classifier takes features from now on, if there will be any.
        """
        network, size = config.network, config.preprocessing.image_size
        pristine = prepared(network.backbone, network.weights, size, config.seed)
        self._prefix = FrozenPrefix(classifier, pristine, network.truncate, network.levels)
        self._config = config
        self._dataset = dataset
        self._pixels = pixels
        numbers, pictures = self._prefix.numbers, len(dataset.split("train"))
        self.plan = plan(config.features, config.batches, numbers, pictures, limit_bytes())
        self._sources: list[FeatureSource] = []
        # On a GPU what isn't kept is better computed where it is used, and batches have their own last bits anyway.
        self._takes_features = self.plan.views > 0 and (self.plan.kept != "live" or classifier.device.type == "cpu")
        classifier.takes_features = self._takes_features

    def source(self, split: SplitName) -> FeatureSource | ViewedPictures | None:
        """Return what the rows of a split turn into; None for its pictures, in training augmented anew."""
        if self.plan.views == 0:
            return None
        pictures = self._pictures(split)
        if not self._takes_features:
            return pictures
        digests = [sample.digest for sample in self._dataset.split(split)]
        content = [digests, self._config.preprocessing.to_dict()]
        source = FeatureSource(self._prefix, pictures, content, self.plan.kept)
        self._sources.append(source)
        return source

    def _pictures(self, split: SplitName) -> ViewedPictures:
        batches, count = self._config.batches, self._config.features.views
        views = views_of(batches.augmentation, batches.balance, count) if split == "train" else (PLAIN,)
        return ViewedPictures(self._pixels.split(split)[0], self._config.preprocessing, self._config.seed, views)

    def facts(self) -> dict[str, str | int | float]:
        """Return what is known of the trial's features by now."""
        full = any(source.disk_is_full for source in self._sources)
        return {"features": DISK_FULL if full else self.plan.kept, "views_shown": self.plan.views}

    def close(self) -> None:
        """Say that this process no longer needs the entries."""
        for source in self._sources:
            source.close()


class FeatureSource:
    """The features of one split's pictures, as a source of batches."""

    def __init__(self, prefix: FrozenPrefix, pictures: ViewedPictures, content: object, kept: Kept) -> None:
        """Take what says which pictures these are, as JSON has it; with ``kept`` live, nothing is kept."""
        self.disk_is_full = False
        self._prefix = prefix
        self._pictures = pictures
        self._content = content
        self._kept: Kept = kept
        self._store = Store()
        self._stored: dict[int, Stored] = {}
        self._keys: list[str] = []

    def epoch(self, number: int) -> Take:
        """Return what gives float32 [b, ...]."""
        return lambda rows, again: self._features(rows, self._pictures.shown(number, again))

    def close(self) -> None:
        """Let the store throw out what this source has used."""
        with contextlib.suppress(OSError):  # on a full disk; the store sees it when this process has ended
            for key in self._keys:
                self._store.release(key)
        self._keys = []

    def _features(self, rows: Rows, shown: Rows) -> Tensor:
        parts: list[tuple[Rows, Packed]] = []
        for which in np.unique(shown):
            view, places = self._view(int(which)), np.flatnonzero(shown == which)
            if view is None:
                return self._prefix.compute(self._pictures.pictures(rows, shown))
            parts.append((places, view.rows(rows[places])))
        return _in_place(parts).unpacked

    # --- entries ---

    def _view(self, which: int) -> Stored | None:
        """Return the features of all pictures in one view, or None where they aren't kept."""
        if which not in self._stored and self._kept != "live" and not self.disk_is_full:
            try:
                self._stored[which] = self._open_or_make(which)
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                self.disk_is_full = True
                logger.warning("the disk is full: frozen blocks are computed in every epoch of this trial (%s)", error)
        return self._stored.get(which)

    def _open_or_make(self, which: int) -> Stored:
        key = self._key(which, self._prefix.name, self._kept)
        folder, index = self._store.root / key, self._prefix.index
        known = remembered(folder, index)
        if known:
            return known
        self._keys.append(key)
        self._store.get_or_make(key, lambda made: self._make(made, which))
        return opened(folder, index)

    def _key(self, which: int, name: str, kept: Kept) -> str:
        view = self._pictures.views[which]
        # What a policy does is decided by its name, our version of it, and the libraries.
        policy = [] if view == PLAIN else [augmentation.VERSION, *map(importlib.metadata.version, AUGMENTING)]
        settings = json.dumps([VERSION, pixel_cache.VERSION, self._prefix.device.type, self._content, view, policy])
        return f"features/{hashlib.blake2b(settings.encode(), digest_size=16).hexdigest()}/{name}-{kept}"

    def _make(self, folder: Path, which: int) -> None:
        self._check_room(folder)
        start = self._start(which)
        module = self._prefix.module_after(start.at) if start else self._prefix.module()

        def compute() -> Iterator[tuple[Tensor, ...]]:
            for rows in in_chunks(len(self._pictures)):
                x = start.stored.rows(rows).unpacked if start else self._pictures.pictures(rows, rows * 0 + which)
                yield run(module, x, self._prefix.device)

        try:
            write(folder, compute, len(self._pictures), half=self._kept == "half")
        finally:
            if start:
                self._store.release(start.key)

    def _check_room(self, folder: Path) -> None:
        disk = shutil.disk_usage(folder)
        needed = len(self._pictures) * self._prefix.numbers_kept * BYTES[self._kept]
        if disk.free - needed < min(MOST_RESERVED, disk.total // 10):
            raise OSError(errno.ENOSPC, f"{needed} bytes are needed, {disk.free} are free", str(folder))

    def _start(self, which: int) -> _Start | None:
        """Return the deepest entry that lies before ours; what is exact is made of what is exact only."""
        precisions: tuple[Kept, ...] = ("exact", "half") if self._kept == "half" else ("exact",)
        for at in self._prefix.starts:
            for kept in precisions:
                key = self._key(which, at.name, kept)
                folder = self._store.get(key)
                if folder:
                    return _Start(at, key, opened(folder, 0))
        return None


def _in_place(parts: list[tuple[Rows, Packed]]) -> Packed:
    """Return the parts of a batch together, each value in its place [b]."""
    (_, first), *others = parts
    if not others:
        return first
    values = torch.empty((sum(len(places) for places, _ in parts), *first.values.shape[1:]))
    for places, part in parts:
        values[torch.from_numpy(places)] = part.values
    return first._replace(values=values)


class _Start(NamedTuple):
    """An entry that another one is made from: where in the network, its key, and its only array."""

    at: Start
    key: str
    stored: Stored
