"""A network as it is before training, ready to be copied: created, loaded and taken apart once in a process.

Two trials on one backbone begin with the same network. To create it, load its weights and find its blocks takes ten
times longer than to copy it, and as long as training a linear probe on kept features.
"""

from __future__ import annotations

import copy
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

CACHE_SIZE = 2  # networks in a process; a search goes back and forth between few


@dataclass(frozen=True)
class PretrainedNetwork:
    """A network without its classifier, on the CPU in channels_last, its blocks, and how many features it gives.

    ``network`` is shared by all who ask for it in this process: nothing may change its tensors.
    """

    network: nn.Module
    blocks: tuple[Block, ...]
    num_features: int

    def copy(self) -> nn.Module:
        """Return a network of one's own."""
        return copy.deepcopy(self.network)

    @functools.cached_property
    def fingerprints(self) -> tuple[str, ...]:
        """What each block's activation is known by: a hash of all that it is computed with."""
        return activation_fingerprints(self.network, self.blocks)


def pretrained(backbone: str, weights: str, image_size: int, seed: int) -> PretrainedNetwork:
    """Return the network that these arguments give; ``seed`` decides what weights don't.

    Raises:
        BackboneError: see ``models.backbones.factory.create_backbone``.
    """
    file = Path(weights).expanduser()
    state = file.stat() if file.is_file() else None
    return _pretrained(backbone, weights, image_size, seed, (state.st_mtime_ns, state.st_size) if state else None)


@functools.cache
def max_truncation_of(backbone: str, image_size: int) -> int:
    """Return up to how many blocks can be dropped from a backbone's end; 0 where none can, or it can't be cut.

    Raises:
        BackboneError: see ``models.backbones.factory.create_backbone``.
    """
    return max_truncation(pretrained(backbone, "none", image_size, 0).blocks)


@functools.lru_cache(maxsize=CACHE_SIZE)
def _pretrained(
    backbone: str, weights: str, image_size: int, seed: int, stamp: tuple[int, int] | None
) -> PretrainedNetwork:
    del stamp  # another file under the same name is another network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        created = create_backbone(backbone, weights, image_size)
    blocks = find_blocks(created.network, image_size)
    to_channels_last(created.network)
    return PretrainedNetwork(created.network, blocks, created.num_features)
