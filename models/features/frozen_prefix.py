"""The frozen half of a classifier: its fingerprint, and the computation of its features.

Shapes: b images; an activation is [b, ...], a pooled one [b, f].
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx, nn

from data.loading.class_balance import Indices
from models.backbones.pretrained_cache import PretrainedNetwork
from models.classifier import Classifier
from models.device import autocast, disable_malloc_trim
from models.features.feature_files import to_memory_order
from models.freezing.blocks import Block
from models.freezing.fx_graph import split_at
from models.freezing.truncation import (
    FeatureLevel,
    feature_taps,
    is_valid_end,
    pooled_features,
    pooled_levels,
    spatial_axes,
)
from models.heads.spec import HeadFeatures

# Images per pass; more is hardly faster. Constant, because the last bits of oneDNN's results depend on the batch size.
CHUNK_SIZE = 16
# Truncations whose pooled features share one entry: they come from the same pass, and are small.
TRUNCATIONS_PER_ENTRY = 4


@dataclass(frozen=True)
class ComputeOrigin:
    """Cached features that an entry can be computed from instead of from the images.

    Attributes:
        fingerprint: of the cached features.
        source: the earlier block whose activation they are, or the columns to select if they are the averages of all
            levels.
    """

    fingerprint: str
    source: Block | SelectColumns


class SelectColumns(nn.Module):
    """Selects columns of features [b, f], one array for each slice."""

    def __init__(self, slices: Sequence[slice]) -> None:
        super().__init__()
        self._slices = tuple(slices)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return a tuple of [b, columns]."""
        return tuple(x[:, columns] for columns in self._slices)


class FrozenPrefix:
    """The computation of a classifier's frozen blocks.

    Attributes:
        elements_per_image: size of the output for one image; 0 if nothing is frozen or the network can't be split.
        cached_elements_per_image: size of a cache entry for one image.
        fingerprint: hash of everything that an entry's content depends on, except the images.
        array_index: index of this classifier's array in the entry.
        origins: cached features that the entry can be computed from, the deepest first.
    """

    def __init__(
        self, classifier: Classifier, pretrained: PretrainedNetwork, truncate: int, head_features: HeadFeatures
    ) -> None:
        """Take a classifier, the network that it was copied from, and its truncation and feature levels."""
        self._classifier = classifier
        self._pretrained = pretrained
        depth = classifier.freeze_depth
        self.elements_per_image, self.cached_elements_per_image, self.fingerprint, self.array_index = 0, 0, "", 0
        self._truncations: tuple[int, ...] = ()
        if not pretrained.fingerprints or depth == 0:
            num_earlier_blocks = 0
        elif depth < len(classifier.blocks):
            self.elements_per_image = math.prod(classifier.blocks[depth - 1].output_shape)
            self.fingerprint = pretrained.fingerprints[depth - 1]
            num_earlier_blocks = depth - 1
        elif head_features == "all":
            levels = pooled_levels(pretrained.blocks, truncate)
            self.elements_per_image, self.fingerprint = levels[-1].columns.stop, self._levels_fingerprint(levels)
            num_earlier_blocks = 0  # the cache entry contains the pooled features of the earlier blocks
        else:
            num_earlier_blocks = self._pool_last_blocks(truncate)
        self.cached_elements_per_image = self.cached_elements_per_image or self.elements_per_image
        earlier = zip(pretrained.fingerprints[:num_earlier_blocks], pretrained.blocks[:num_earlier_blocks], strict=True)
        self.origins = [*self._levels_origin(), *[ComputeOrigin(name, block) for name, block in earlier][::-1]]

    def _levels_fingerprint(self, levels: Sequence[FeatureLevel]) -> str:
        fingerprints = self._pretrained.fingerprints
        return _hash(["head_features", *((fingerprints[level.block.index], level.axes) for level in levels)])

    def _levels_origin(self) -> list[ComputeOrigin]:
        """Return the origin that contains all arrays of an entry of pooled features; empty for other entries."""
        if not self._truncations:
            return []
        levels = pooled_levels(self._pretrained.blocks, 0)
        columns = {len(self._pretrained.blocks) - 1 - level.block.index: level.columns for level in levels}
        select = SelectColumns([columns[t] for t in self._truncations])
        return [ComputeOrigin(self._levels_fingerprint(levels), select)]

    def _pool_last_blocks(self, truncate: int) -> int:
        """Set up an entry with the pooled features of the last blocks; return the number of blocks before them."""
        blocks, fingerprints = self._pretrained.blocks, self._pretrained.fingerprints
        first = truncate - truncate % TRUNCATIONS_PER_ENTRY
        axes = {
            t: spatial_axes(blocks, t) for t in range(first, first + TRUNCATIONS_PER_ENTRY) if is_valid_end(blocks, t)
        }
        self._truncations = tuple(axes)
        self.array_index = self._truncations.index(truncate)
        widths = {t: pooled_features(blocks[-1 - t], axes[t]) for t in axes}
        self.elements_per_image, self.cached_elements_per_image = widths[truncate], sum(widths.values())
        self.fingerprint = _hash([(fingerprints[-1 - t], axes[t]) for t in self._truncations])
        return len(blocks) - 1 - max(self._truncations)

    @property
    def device(self) -> torch.device:
        """Device of the computation."""
        return self._classifier.device

    def compute(self, images: Tensor) -> Tensor:
        """Return this classifier's features of images [b, 3, s, s] on the CPU, bit-identical for any b."""
        outputs = [run(self._classifier.prefix, chunk, self.device)[0] for chunk in torch.split(images, CHUNK_SIZE)]
        tensors = [to_memory_order(output) for output in outputs]
        return tensors[0]._replace(values=torch.cat([tensor.values for tensor in tensors])).unpacked

    def module(self) -> nn.Module:
        """Return the module that computes all arrays of an entry from images."""
        if not self._truncations:
            return self._classifier.prefix
        network = self._pretrained.network
        network = network if self.device.type == "cpu" else copy.deepcopy(network).to(self.device)
        return feature_taps(network, self._pretrained.blocks, self._truncations).eval()

    def module_from(self, origin: ComputeOrigin) -> nn.Module:
        """Return the module that computes all arrays of an entry from an origin's features."""
        if isinstance(origin.source, SelectColumns):
            return origin.source
        module = self.module()
        assert isinstance(module, fx.GraphModule)  # noqa: S101  (it has a fingerprint, so it was traced)
        return split_at(module, module.graph, [(origin.source.node, origin.source.constants)])[1].eval()


def _hash(content: object) -> str:
    return hashlib.blake2b(repr(content).encode(), digest_size=16).hexdigest()


def chunks(num_images: int) -> Iterator[Indices]:
    """Yield the row indices of ``range(num_images)`` in chunks of ``CHUNK_SIZE``."""
    for first in range(0, num_images, CHUNK_SIZE):
        yield np.arange(first, min(first + CHUNK_SIZE, num_images))


@torch.no_grad()
def run(module: nn.Module, x: Tensor, device: torch.device) -> tuple[Tensor, ...]:
    """Run a module on up to ``CHUNK_SIZE`` images or activations [b, ...]; return float32 tensors on the CPU."""
    disable_malloc_trim()
    with autocast(device):
        result = module(_pad_to_chunk(x).to(device))
    outputs = result if isinstance(result, tuple) else (result,)
    return tuple(output[: len(x)].float().cpu() for output in outputs)


def _pad_to_chunk(x: Tensor) -> Tensor:
    """Return a batch of ``CHUNK_SIZE`` with the same strides, padded with copies of the last item."""
    if len(x) == CHUNK_SIZE:
        return x
    tensor = to_memory_order(x)
    padding = tensor.values[-1:].expand(CHUNK_SIZE - len(x), *tensor.values.shape[1:])
    return tensor._replace(values=torch.cat([tensor.values, padding])).unpacked
