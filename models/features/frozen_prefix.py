"""The frozen half of a classifier: what its features are named after, and how they are computed.

Shapes: b pictures, n pictures in all; an activation is [b, ...], and pooled it is [b, f].
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
from models.freezing.fx_graph import split_graph
from models.freezing.truncation import (
    FeatureLevel,
    feature_taps,
    is_valid_end,
    pooled_features,
    pooled_levels,
    spatial_axes,
)
from models.heads.spec import HeadFeatures

CHUNK_SIZE = (
    16  # pictures at a time; more is hardly faster. Always as many: oneDNN's last bits depend on how many there are
)
TRUNCATIONS_PER_ENTRY = 4  # truncations whose features one entry holds: they come out of the same pass, and are small


@dataclass(frozen=True)
class ComputeOrigin:
    """What computing can start from instead of at the pictures: its name, and what turns it into an entry's arrays.

    It is an activation nearer to the pictures, or the averages of all levels, of which ours are some.
    """

    name: str
    at: Block | SelectColumns


class SelectColumns(nn.Module):
    """Gives some columns of [b, f], for each of ``slices`` an array."""

    def __init__(self, slices: Sequence[slice]) -> None:
        super().__init__()
        self._slices = tuple(slices)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return a tuple of [b, columns]."""
        return tuple(x[:, columns] for columns in self._slices)


class FrozenPrefix:
    """What the frozen blocks of a classifier compute.

    Attributes:
        numbers: how many it gives for a picture; 0 where nothing is frozen or the network can't be cut.
        numbers_kept: how many an entry holds for a picture.
        name: a hash of all that an entry's content follows from, apart from the pictures.
        index: which of the entry's arrays is this classifier's.
        starts: where computing can start instead of at the pictures, the nearest to the end first.
    """

    def __init__(
        self, classifier: Classifier, pretrained: PretrainedNetwork, truncate: int, head_features: HeadFeatures = "last"
    ) -> None:
        """Take a classifier, the network that it was copied from, how many blocks were dropped, and what is seen."""
        self._classifier = classifier
        self._pretrained = pretrained
        depth = classifier.freeze_depth
        self.elements_per_image, self.cached_elements_per_image, self.name, self.index = 0, 0, "", 0
        self._truncations: tuple[int, ...] = ()
        if not pretrained.fingerprints or depth == 0:
            before = 0
        elif depth < len(classifier.blocks):
            self.elements_per_image, self.name = (
                math.prod(classifier.blocks[depth - 1].output_shape),
                pretrained.fingerprints[depth - 1],
            )
            before = depth - 1
        elif head_features == "all":
            every = pooled_levels(pretrained.blocks, truncate)
            self.elements_per_image, self.name = every[-1].columns.stop, self._name_of(every)
            before = 0  # what the first blocks give is a part of it
        else:
            before = self._pooled(truncate)
        self.cached_elements_per_image = self.cached_elements_per_image or self.elements_per_image
        ends = zip(pretrained.fingerprints[:before], pretrained.blocks[:before], strict=True)
        self.origins = [*self._levels(), *[ComputeOrigin(name, block) for name, block in ends][::-1]]

    def _name_of(self, levels: Sequence[FeatureLevel]) -> str:
        names = self._pretrained.fingerprints
        return _hashed(["head_features", *((names[level.block.index], level.axes) for level in levels)])

    def _levels(self) -> list[ComputeOrigin]:
        """Return the start that holds all arrays of an entry of averages; none for other entries."""
        if not self._truncations:
            return []
        every = pooled_levels(self._pretrained.blocks, 0)
        columns = {len(self._pretrained.blocks) - 1 - level.block.index: level.columns for level in every}
        return [ComputeOrigin(self._name_of(every), SelectColumns([columns[t] for t in self._truncations]))]

    def _pooled(self, truncate: int) -> int:
        """Take the averaged activations of the last blocks, all in one entry; return how many blocks come before."""
        blocks, names = self._pretrained.blocks, self._pretrained.fingerprints
        first = truncate - truncate % TRUNCATIONS_PER_ENTRY
        axes = {
            t: spatial_axes(blocks, t) for t in range(first, first + TRUNCATIONS_PER_ENTRY) if is_valid_end(blocks, t)
        }
        self._truncations = tuple(axes)
        self.index = self._truncations.index(truncate)
        numbers = {t: pooled_features(blocks[-1 - t], axes[t]) for t in axes}
        self.elements_per_image, self.cached_elements_per_image = numbers[truncate], sum(numbers.values())
        self.name = _hashed([(names[-1 - t], axes[t]) for t in self._truncations])
        return len(blocks) - 1 - max(self._truncations)

    @property
    def device(self) -> torch.device:
        """Where it is computed."""
        return self._classifier.device

    def compute(self, images: Tensor) -> Tensor:
        """Return this classifier's features of pictures [b, 3, s, s], the same bits for any b, on the CPU."""
        chunks = [run(self._classifier.prefix, chunk, self.device)[0] for chunk in torch.split(images, CHUNK_SIZE)]
        packed = [to_memory_order(chunk) for chunk in chunks]
        return packed[0]._replace(values=torch.cat([part.values for part in packed])).unpacked

    def module(self) -> nn.Module:
        """Return what gives all of an entry's arrays for pictures."""
        if not self._truncations:
            return self._classifier.prefix
        network = self._pretrained.network
        network = network if self.device.type == "cpu" else copy.deepcopy(network).to(self.device)
        return feature_taps(network, self._pretrained.blocks, self._truncations).eval()

    def module_from(self, start: ComputeOrigin) -> nn.Module:
        """Return what gives all of an entry's arrays for what a start holds."""
        if isinstance(start.at, SelectColumns):
            return start.at
        whole = self.module()
        assert isinstance(whole, fx.GraphModule)  # noqa: S101  (it has a name, so it was traced)
        return split_graph(whole, whole.graph, start.at.node, start.at.constants)[1].eval()


def _hashed(content: object) -> str:
    return hashlib.blake2b(repr(content).encode(), digest_size=16).hexdigest()


def chunks(count: int) -> Iterator[Indices]:
    """Yield the rows 0..count in order, ``CHUNK_SIZE`` at a time."""
    for first in range(0, count, CHUNK_SIZE):
        yield np.arange(first, min(first + CHUNK_SIZE, count))


@torch.no_grad()
def run(module: nn.Module, x: Tensor, device: torch.device) -> tuple[Tensor, ...]:
    """Return what a module gives for at most ``CHUNK_SIZE`` pictures or activations [b, ...], float32 on the CPU."""
    disable_malloc_trim()
    with autocast(device):
        given = module(_pad_to_chunk(x).to(device))
    outputs = given if isinstance(given, tuple) else (given,)
    return tuple(output[: len(x)].float().cpu() for output in outputs)


def _pad_to_chunk(x: Tensor) -> Tensor:
    """Return ``CHUNK_SIZE`` pictures, of which the last may be there several times, lying in memory as before."""
    if len(x) == CHUNK_SIZE:
        return x
    packed = to_memory_order(x)
    rest = packed.values[-1:].expand(CHUNK_SIZE - len(x), *packed.values.shape[1:])
    return packed._replace(values=torch.cat([packed.values, rest])).unpacked
