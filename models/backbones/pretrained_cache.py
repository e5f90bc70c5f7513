"""Per-process cache of networks as they are before a trial: created, loaded and split into blocks once, then copied.

Two trials with the same backbone start from the same network. Creating it, loading its weights and finding its blocks
takes ten times longer than copying it, and as long as training a linear probe on cached features.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from models.backbones.factory import create_backbone
from models.backbones.fingerprint import activation_fingerprints
from models.device import to_channels_last
from models.freezing.blocks import Block, find_blocks
from models.freezing.truncation import max_truncation

CACHE_SIZE = 2  # networks per process; a search alternates between only a few


@dataclass(frozen=True)
class PretrainedNetwork:
    """A network without its classifier, on the CPU in channels_last, with its blocks and number of features.

    ``network`` is shared within this process: its tensors must not be changed.
    """

    network: nn.Module
    blocks: tuple[Block, ...]
    num_features: int

    @functools.cached_property
    def fingerprints(self) -> tuple[str, ...]:
        """Fingerprint of each block's activation: a hash of everything that it is computed with."""
        return activation_fingerprints(self.network, self.blocks)


def pretrained(backbone: str, weights: str, image_size: int, seed: int) -> PretrainedNetwork:
    """Return the network for these arguments; ``seed`` decides all tensors that the weights don't contain.

    Raises:
        BackboneError: see ``models.backbones.factory.create_backbone``.
    """
    file = Path(weights).expanduser()
    stat = file.stat() if file.is_file() else None
    return _pretrained(backbone, weights, image_size, seed, (stat.st_mtime_ns, stat.st_size) if stat else None)


@functools.cache
def max_truncation_of(backbone: str, image_size: int) -> int:
    """Return the largest number of trailing blocks that can be dropped; 0 also for a network that can't be split.

    Raises:
        BackboneError: see ``models.backbones.factory.create_backbone``.
    """
    return max_truncation(pretrained(backbone, "none", image_size, 0).blocks)


@functools.lru_cache(maxsize=CACHE_SIZE)
def _pretrained(
    backbone: str, weights: str, image_size: int, seed: int, file_version: tuple[int, int] | None
) -> PretrainedNetwork:
    del file_version  # part of the cache key only: a changed file is another network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        created = create_backbone(backbone, weights, image_size)
    blocks = find_blocks(created.network, image_size)
    to_channels_last(created.network)
    return PretrainedNetwork(created.network, blocks, created.num_features)
