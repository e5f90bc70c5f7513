"""Batch loader: from cached pixels, or features computed from them, to the tensors of a training step.

No worker processes are used: pixels are memory-mapped, and building a batch takes less time than transferring it
between processes. With a GPU, a thread prepares the next batch while the GPU uses the current one: in pinned memory, or
on the GPU if it augments the images. This is safe because both threads use the GPU's default stream, which computes in
the order of submission.

Shapes: b = batch size, n = number of images, s = image size in pixels, 3 channels, k = number of classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch

from data.dataset.stratified_parts import StratifiedParts
from data.loading.batch_config import BatchConfig
from data.loading.class_balance import Indices, class_weights, epoch_indices, epoch_size
from data.loading.mixup import apply_mixup
from data.loading.views import OnTheFlyImages, SampleSource

Labels = npt.NDArray[np.int64]
Batch = tuple[torch.Tensor, torch.Tensor]


class BatchLoader:
    """Batches of one split, for any number of epochs.

    Attributes:
        labels: the labels of the images of epoch 0; all epochs have as many images of each class.

    In training, each epoch is shuffled, balanced, augmented and mixed differently, and a last batch of a single image
    is merged into the previous one because batch norm fails on it. In evaluation, all images come in order, unchanged.
    Batches are deterministic given the seed and the epoch.
    """

    def __init__(
        self,
        source: SampleSource,
        labels: Labels,
        config: BatchConfig,
        seed: int,
        training: bool,
        num_classes: int,
        parts: StratifiedParts | None = None,
    ) -> None:
        """Take a source of n images, which also augments them, and their labels, int64 [n].

        With ``parts`` each epoch uses one part of the images.

        Raises:
            ValueError: there are no images, or ``mix`` is set although ``source`` does not augment on the fly.
        """
        if len(labels) == 0:
            raise ValueError("a loader must have at least 1 image, got 0; pass a split with images")
        if training and config.mix != "none" and not isinstance(source, OnTheFlyImages):
            raise ValueError(f"mix must be none unless images are augmented on the fly, got {config.mix}")
        self.source = source
        self.config = config
        self.seed = seed
        self.training = training
        self.num_classes = num_classes
        self._all_labels = labels
        self._parts = parts
        self.labels = labels[self.rows(0)]

    def rows(self, epoch: int) -> Indices:
        """Return the indices of the images of an epoch."""
        return np.arange(len(self._all_labels)) if self._parts is None else self._parts.rows(epoch)

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
        return _prefetched(batches) if torch.cuda.is_available() else batches

    def _batches(self, number: int) -> Iterator[Batch]:
        rng = np.random.default_rng((self.seed, number))
        rows = self.rows(number)
        repeat = np.zeros_like(rows)
        if self.training:
            order, repeat = epoch_indices(self._all_labels[rows], self.config.balance, rng)
            rows = rows[order]
        gather = self.source.epoch(number)
        boundaries = [batch * self.config.batch_size for batch in range(1, len(self))]
        for positions in np.array_split(np.arange(len(rows)), boundaries):
            x = gather(rows[positions], repeat[positions])
            y = torch.from_numpy(self._all_labels[rows[positions]])
            if self.training and self.config.mix != "none":
                x, y = apply_mixup(x, y, self.config.mix, self.num_classes, rng)
            yield x, y


def _prefetched(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield batches on the GPU or in pinned memory; a thread prepares each while the previous one is in use."""
    pinned = ((x if x.is_cuda else x.pin_memory(), y.pin_memory()) for x, y in batches)
    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(next, pinned, None)
        while batch := future.result():
            future = pool.submit(next, pinned, None)
            yield batch
