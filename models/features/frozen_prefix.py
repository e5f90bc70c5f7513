"""The frozen half of a classifier: its fingerprint, and the computation of its features.

Shapes: b images; an activation is [b, ...], a pooled one [b, f].
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from data.loading.class_balance import Indices
from models.backbones.pretrained_cache import PretrainedNetwork
from models.classifier import Classifier
from models.device import autocast, disable_malloc_trim
from models.features.feature_files import to_memory_order
from models.freezing.blocks import Block
from models.freezing.fx_graph import split_at, trace
from models.freezing.truncation import FeatureLevel, pooled_levels
from models.heads.spec import HeadFeatures
from models.precision import ComputePrecision

# Images per pass; more is hardly faster. Constant, because the last bits of oneDNN's results depend on the batch size.
CHUNK_SIZE = 16


@dataclass(frozen=True)
class ComputeOrigin:
    """The fingerprint and the source of cached features that an entry can be computed from instead of from the images.

    The source is the earlier block whose activation they are, or the columns to select from the features of all levels.
    """

    fingerprint: str
    source: Block | SelectColumns


class SelectColumns(nn.Module):
    """Selects columns of features [b, f]."""

    def __init__(self, columns: slice) -> None:
        super().__init__()
        self._columns = columns

    def forward(self, x: Tensor) -> Tensor:
        """Return [b, columns]."""
        return x[:, self._columns]


class FrozenPrefix:
    """The computation of a classifier's frozen blocks.

    Attributes:
        elements_per_image: size of the output for one image; 0 if nothing is frozen or the network can't be split.
        fingerprint: hash of everything that the output depends on, except the images.
        origins: cached features that the output can be computed from, the deepest first.
    """

    def __init__(
        self, classifier: Classifier, pretrained: PretrainedNetwork, truncate: int, head_features: HeadFeatures
    ) -> None:
        """Take a classifier, the network that it was copied from, and its truncation and feature levels."""
        self._classifier = classifier
        self.elements_per_image, self.fingerprint, self.origins = 0, "", list[ComputeOrigin]()
        depth, blocks, fingerprints = classifier.freeze_depth, pretrained.blocks, pretrained.fingerprints
        if not fingerprints or depth == 0:
            return
        if depth < len(classifier.blocks):
            self.elements_per_image = math.prod(classifier.blocks[depth - 1].output_shape)
            self.fingerprint = fingerprints[depth - 1]
            num_earlier_blocks = depth - 1
        elif head_features == "all":
            levels = pooled_levels(blocks, truncate)
            self.elements_per_image, self.fingerprint = levels[-1].columns.stop, _fingerprint(levels, fingerprints)
            num_earlier_blocks = 0  # the output contains the pooled features of the earlier blocks
        else:
            all_levels = pooled_levels(blocks, 0)
            last = next(level for level in all_levels if level.block == blocks[-1 - truncate])
            self.elements_per_image = last.columns.stop - last.columns.start
            self.fingerprint = _fingerprint([last], fingerprints)
            self.origins.append(ComputeOrigin(_fingerprint(all_levels, fingerprints), SelectColumns(last.columns)))
            num_earlier_blocks = last.block.index
        for block in reversed(blocks[:num_earlier_blocks]):
            self.origins.append(ComputeOrigin(fingerprints[block.index], block))

    @property
    def device(self) -> torch.device:
        """Device of the computation."""
        return self._classifier.device

    @property
    def precision(self) -> ComputePrecision:
        """What the output is computed in."""
        return self._classifier.frozen_precision

    @property
    def module(self) -> nn.Module:
        """The module that computes the output from images."""
        return self._classifier.prefix

    def compute(self, images: Tensor) -> Tensor:
        """Return this classifier's features of images [b, 3, s, s] on the CPU, bit-identical for any b."""
        outputs = [run(self.module, chunk, self.device, self.precision) for chunk in torch.split(images, CHUNK_SIZE)]
        tensors = [to_memory_order(output) for output in outputs]
        return tensors[0]._replace(values=torch.cat([tensor.values for tensor in tensors])).unpacked

    def module_from(self, origin: ComputeOrigin) -> nn.Module:
        """Return the module that computes the output from an origin's features."""
        if isinstance(origin.source, SelectColumns):
            return origin.source
        graph = trace(self.module)
        assert graph is not None  # noqa: S101  (it has a fingerprint, so it can be traced)
        return split_at(self.module, graph, [(origin.source.node, origin.source.constants)])[1].eval()


def _fingerprint(levels: Sequence[FeatureLevel], fingerprints: Sequence[str]) -> str:
    content = [(fingerprints[level.block.index], level.axes) for level in levels]
    return hashlib.blake2b(repr(content).encode(), digest_size=16).hexdigest()


def chunks(num_images: int) -> Iterator[Indices]:
    """Yield the row indices of ``range(num_images)`` in chunks of ``CHUNK_SIZE``."""
    for first in range(0, num_images, CHUNK_SIZE):
        yield np.arange(first, min(first + CHUNK_SIZE, num_images))


@torch.no_grad()
def run(module: nn.Module, x: Tensor, device: torch.device, precision: ComputePrecision) -> Tensor:
    """Run a module on up to ``CHUNK_SIZE`` images or activations [b, ...]; return a float32 tensor on the CPU."""
    disable_malloc_trim()
    with autocast(device, precision):
        output: Tensor = module(_pad_to_chunk(x).to(device))
    return output[: len(x)].float().cpu()


def _pad_to_chunk(x: Tensor) -> Tensor:
    """Return a batch of ``CHUNK_SIZE`` with the same strides, padded with copies of the last item."""
    if len(x) == CHUNK_SIZE:
        return x
    tensor = to_memory_order(x)
    padding = tensor.values[-1:].expand(CHUNK_SIZE - len(x), *tensor.values.shape[1:])
    return tensor._replace(values=torch.cat([tensor.values, padding])).unpacked
