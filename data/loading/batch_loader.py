"""Order and balance: from cached pixels, or what was computed of them, to the tensors that a training step takes.

There are no worker processes: the pixels are mapped from disk, and turning a batch of them into a tensor takes
less time than handing it from one process to another. With a GPU, one thread makes the next batch ready in pinned
memory while the GPU works on this one.

Shapes: b pictures, n pictures in all, s pixels a side, 3 channels, k classes.
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
    """The pictures of one split as batches, again for every epoch.

    In training they are shuffled, balanced, augmented and mixed anew for each epoch, and a last batch of one picture
    joins the one before it (batch norm can't learn from one). Otherwise they come in order, unchanged, and all of
    them. The same seed and epoch give the same batches, whatever else ran in the process.
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
        """Take pixels, uint8 [n, s, s, 3], and labels, int64 [n].

        ``classes`` is k where the highest labels may be missing here. ``ahead`` makes the next batch
        while this one is used, by default where there is a GPU. ``source`` says what a row turns into, by default
        its picture, augmented anew in every epoch.

        Raises:
            ValueError: there are not as many labels as pictures, or none at all; or what isn't a fresh picture would be
                mixed.
        """
        if len(pixels) != len(labels) or len(pixels) == 0:
            raise ValueError(f"pictures and labels must be as many and at least one, got {len(pixels)}, {len(labels)}")
        if source is not None and training and config.mix != "none":
            raise ValueError(f"only pictures augmented anew can be mixed, so mix must be none here, got {config.mix}")
        self.pixels = pixels
        self.labels = labels
        self.preprocessing = preprocessing
        self.config = config
        self.seed = seed
        self.training = training
        self.num_classes = num_classes or int(labels.max()) + 1
        self._prefetch = torch.cuda.is_available() if prefetch is None else prefetch
        policy, balance = (config.augmentation, config.balance) if training else ("none", "none")
        self.source = source or OnTheFlyImages(pixels, preprocessing, seed, policy, balance)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        shown = epoch_size(self.labels, self.config.balance) if self.training else len(self.labels)
        count = math.ceil(shown / self.config.batch_size)
        alone = self.training and shown > 1 and shown % self.config.batch_size == 1
        return count - 1 if alone else count

    @property
    def class_weights(self) -> torch.Tensor | None:
        """What the training loss is to be weighed with, float32 [k]; None where nothing is."""
        if not self.training or self.config.balance != "weights":
            return None
        return torch.from_numpy(class_weights(self.labels, self.num_classes))

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield float32 [b, 3, s, s] in channels_last format, normalized, or what the source gives, and int64 [b].

        Where training pictures are mixed, the labels are the shares of the classes, float32 [b, k].
        """
        batches = self._batches(number)
        return _prefetched(batches) if self._prefetch else batches

    def _batches(self, number: int) -> Iterator[Batch]:
        random = np.random.default_rng((self.seed, number))
        rows = np.arange(len(self.labels))
        again = np.zeros_like(rows)
        if self.training:
            rows, again = epoch_indices(self.labels, self.config.balance, random)
        take = self.source.epoch(number)
        for places in np.array_split(np.arange(len(rows)), self._cuts()):
            x = take(rows[places], again[places])
            y = torch.from_numpy(self.labels[rows[places]])
            if self.training and self.config.mix != "none":
                x, y = apply_mixup(x, y, self.config.mix, self.num_classes, random)
            yield x, y

    def _cuts(self) -> list[int]:
        return [batch * self.config.batch_size for batch in range(1, len(self))]


def _prefetched(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield batches in pinned memory, each made while the one before it is used."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(next, batches, None)
        while batch := coming.result():
            coming = pool.submit(next, batches, None)
            x, y = batch
            yield (x.pin_memory(), y.pin_memory()) if torch.cuda.is_available() else (x, y)
