"""Order and augmentation: from cached pixels to the tensors that a training step takes.

There are no worker processes: the pixels are mapped from disk, and turning a batch of them into a tensor takes
less time than handing it from one process to another.

Shapes: b pictures, s pixels a side, 3 channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from data.augment import build_policy
from data.preprocess import Pixels, Preprocessing, normalize
from data.values import Value

Labels = npt.NDArray[np.int64]


class BatchConfig(Value):
    """How training batches are made.

    Attributes:
        batch_size: pictures in a batch.
        augmentation: a policy of ``data.augment``.
        balance: what is done about classes of different size.
    """

    batch_size: int = Field(default=32, ge=1)
    augmentation: Literal["none", "light", "medium", "strong"] = "light"
    balance: Literal["none"] = "none"


class Batches:
    """The pictures of one split as batches, again for every epoch.

    In training they are shuffled and augmented anew for each epoch, and a last batch of one picture joins the one
    before it (batch norm can't learn from one). Otherwise they come in order, unchanged, and all of them.
    The same seed and epoch give the same batches, whatever else ran in the process.
    """

    def __init__(
        self,
        pixels: Pixels,
        labels: Labels,
        preprocessing: Preprocessing,
        config: BatchConfig,
        seed: int,
        training: bool,
    ) -> None:
        """Take pixels, uint8 [n, s, s, 3], and labels, int64 [n].

        Raises:
            ValueError: there are not as many labels as pictures, or none at all.
        """
        if len(pixels) != len(labels) or len(pixels) == 0:
            raise ValueError(f"pictures and labels must be as many and at least one, got {len(pixels)}, {len(labels)}")
        self.pixels = pixels
        self.labels = labels
        self.preprocessing = preprocessing
        self.config = config
        self.seed = seed
        self.training = training
        self._policy = build_policy(config.augmentation, preprocessing.image_size) if training else None

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        count = math.ceil(len(self.labels) / self.config.batch_size)
        return count - 1 if self._last_is_alone() else count

    def epoch(self, number: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield float32 [b, 3, s, s] in channels_last format, normalised, and int64 [b]."""
        order = self._order(number)
        cuts = [batch * self.config.batch_size for batch in range(1, len(self))]
        for rows in np.split(order, cuts):
            pictures = self._pictures(rows, number)
            yield torch.from_numpy(normalize(pictures, self.preprocessing)), torch.from_numpy(self.labels[rows])

    def _last_is_alone(self) -> bool:
        return self.training and len(self.labels) > 1 and len(self.labels) % self.config.batch_size == 1

    def _order(self, number: int) -> npt.NDArray[np.intp]:
        rows = np.arange(len(self.labels))
        return np.random.default_rng((self.seed, number)).permutation(rows) if self.training else rows

    def _pictures(self, rows: npt.NDArray[np.intp], number: int) -> Pixels:
        pictures = np.asarray(self.pixels[rows])
        if self._policy is None:
            return pictures
        seeds = np.random.SeedSequence((self.seed, number)).generate_state(len(self.labels))[rows]
        return np.stack([self._policy(one, int(seed)) for one, seed in zip(pictures, seeds, strict=True)])
