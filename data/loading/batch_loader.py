"""Batch loader: from cached pixels, or features computed from them, to the tensors of a training step.

No worker processes are used: pixels are memory-mapped, and building a batch takes less time than transferring it
between processes. With a GPU, a thread prepares the next batch in pinned memory while the GPU uses the current one.

Shapes: b = batch size, n = number of images, s = image size in pixels, 3 channels, k = number of classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch

from data.loading.batch_config import BatchConfig
from data.loading.class_balance import class_weights, epoch_indices, epoch_size
from data.loading.mixup import apply_mixup
from data.loading.views import OnTheFlyImages, SampleSource
from data.preprocessing import Pixels, Preprocessing

Labels = npt.NDArray[np.int64]
Batch = tuple[torch.Tensor, torch.Tensor]


class BatchLoader:
    """Batches of one split, for any number of epochs.

    In training, each epoch is shuffled, balanced, augmented and mixed differently, and a last batch of a single image
    is merged into the previous one because batch norm fails on it. In evaluation, all images come in order, unchanged.
    Batches are deterministic given the seed and the epoch.
    """

    def __init__(
        self,
        pixels: Pixels,
        labels: Labels,
        preprocessing: Preprocessing,
        config: BatchConfig,
        seed: int,
        training: bool,
        num_classes: int | None = None,
        prefetch: bool | None = None,
        source: SampleSource | None = None,
    ) -> None:
        """Initialize the loader.

        Args:
            pixels: uint8 [n, s, s, 3].
            labels: int64 [n].
            preprocessing: preprocessing of the backbone.
            config: batch size, augmentation, balancing and mixing.
            seed: determines order, augmentation and mixing.
            training: whether to shuffle, balance, augment and mix.
            num_classes: k; by default the highest label in ``labels`` plus 1.
            prefetch: whether to prepare the next batch in a thread; by default if a GPU is available.
            source: converts indices to tensors; by default to images that are augmented on the fly.

        Raises:
            ValueError: the numbers of images and labels differ or are 0, or ``mix`` is set although ``source`` does
                not augment on the fly.
        """
        if len(pixels) != len(labels) or len(pixels) == 0:
            raise ValueError(
                f"images and labels must have the same length of at least 1, got {len(pixels)} and {len(labels)}"
            )
        if source is not None and training and config.mix != "none":
            raise ValueError(f"mix must be none unless images are augmented on the fly, got {config.mix}")
        self.pixels = pixels
        self.labels = labels
        self.preprocessing = preprocessing
        self.config = config
        self.seed = seed
        self.training = training
        self.num_classes = num_classes or int(labels.max()) + 1
        self._prefetch = torch.cuda.is_available() if prefetch is None else prefetch
        augmentation, balance = (config.augmentation, config.balance) if training else ("none", "none")
        self.source = source or OnTheFlyImages(pixels, preprocessing, seed, augmentation, balance)

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        size = epoch_size(self.labels, self.config.balance) if self.training else len(self.labels)
        count = math.ceil(size / self.config.batch_size)
        has_single_image_batch = self.training and size > 1 and size % self.config.batch_size == 1
        return count - 1 if has_single_image_batch else count

    @property
    def class_weights(self) -> torch.Tensor | None:
        """Class weights of the training loss, float32 [k], or None if it is unweighted."""
        if not self.training or self.config.balance != "weights":
            return None
        return torch.from_numpy(class_weights(self.labels, self.num_classes))

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of an epoch as tensors (x, y).

        x is float32 [b, 3, s, s] in channels_last format, normalized, or the output of ``source``. y is int64 [b], or
        the shares of the classes, float32 [b, k], if training images are mixed.
        """
        batches = self._batches(number)
        return _prefetched(batches) if self._prefetch else batches

    def _batches(self, number: int) -> Iterator[Batch]:
        rng = np.random.default_rng((self.seed, number))
        indices = np.arange(len(self.labels))
        repeat = np.zeros_like(indices)
        if self.training:
            indices, repeat = epoch_indices(self.labels, self.config.balance, rng)
        gather = self.source.epoch(number)
        for positions in np.array_split(np.arange(len(indices)), self._batch_boundaries()):
            x = gather(indices[positions], repeat[positions])
            y = torch.from_numpy(self.labels[indices[positions]])
            if self.training and self.config.mix != "none":
                x, y = apply_mixup(x, y, self.config.mix, self.num_classes, rng)
            yield x, y

    def _batch_boundaries(self) -> list[int]:
        return [batch * self.config.batch_size for batch in range(1, len(self))]


def _prefetched(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield batches in pinned memory; each is prepared while the previous one is in use."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(next, batches, None)
        while batch := future.result():
            future = pool.submit(next, batches, None)
            x, y = batch
            yield (x.pin_memory(), y.pin_memory()) if torch.cuda.is_available() else (x, y)
