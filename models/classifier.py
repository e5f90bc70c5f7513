"""A classifier: a backbone that is split at its freeze line, and a head for the user's classes.

Shapes: b images of s x s pixels, f features, k classes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Self

import torch
from torch import Tensor, nn

from models.backbones.pretrained_cache import pretrained
from models.device import autocast
from models.freezing.blocks import Block, parameters_by_block, split
from models.freezing.truncation import truncate_network
from models.heads.build import build_head
from models.precision import ComputePrecision
from models.trial_config import NetworkConfig


class Classifier(nn.Module):
    """Frozen prefix, trained suffix, head: [b, 3, s, s] -> logits [b, k].

    ``network`` and ``head`` own all parameters and buffers, so ``state_dict()`` holds them as ``network.`` plus the
    library's own names, independent of the freeze line. ``prefix`` and ``suffix`` are the two halves of that network
    and share its modules. The prefix runs without gradients and stays in eval mode: its batch norm statistics stay
    bit-identical, and its dropout is off.

    Attributes:
        blocks: the network's blocks, first to last.
        freeze_depth: number of leading blocks that are frozen.
        expects_features: whether ``forward`` takes the output of the prefix instead of images and skips the prefix.
        frozen_precision: what the prefix is computed in; ``fp32`` unless a trial sets it.
        trained_precision: what the suffix and the head are computed in by ``run_epoch``; likewise.
    """

    def __init__(self, network: nn.Module, blocks: tuple[Block, ...], freeze_depth: int, head: nn.Module) -> None:
        """Split the network at the freeze line. Its parameters are shared, not copied.

        Raises:
            ValueError: ``freeze_depth`` isn't 0..len(blocks).
        """
        super().__init__()
        self.network = network
        self.head = head
        self.blocks = blocks
        self.freeze_depth = freeze_depth
        self.expects_features = False
        self.frozen_precision: ComputePrecision = "fp32"
        self.trained_precision: ComputePrecision = "fp32"
        # A tuple is not registered by torch; registered halves would duplicate every name in the state dict.
        self._halves = split(network, blocks, freeze_depth)
        trained = set(self.suffix.parameters()) - set(self.prefix.parameters())
        for parameter in set(network.parameters()) - trained:  # frozen, or never used in a forward pass
            parameter.requires_grad_(False)
        self.train()

    @property
    def prefix(self) -> nn.Module:
        """The frozen half: [b, 3, s, s] -> the activation at the freeze line."""
        return self._halves[0]

    @property
    def suffix(self) -> nn.Module:
        """The trained half: the activation at the freeze line -> [b, f]."""
        return self._halves[1]

    @property
    def freeze_block(self) -> str:
        """Name of the last frozen block; empty if nothing is frozen."""
        return self.blocks[self.freeze_depth - 1].name if self.freeze_depth else ""

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.head.parameters()).device

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [b, k] for normalized images [b, 3, s, s], or for their features from the prefix."""
        if not self.expects_features:
            with torch.no_grad(), autocast(self.device, self.frozen_precision):
                x = self.prefix(x)
            if self.frozen_precision == "bf16":
                x = x.float()
        logits: Tensor = self.head(self.suffix(x))
        return logits

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the suffix and the head; the prefix stays in eval mode."""
        super().train(mode)
        self.suffix.train(mode)
        self.prefix.eval()
        return self

    def trainable_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the parameters that an optimizer may change, with their names in ``state_dict()``."""
        return ((name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad)

    def layer_depths(self) -> dict[nn.Parameter, int]:
        """Return the distance in blocks from the head for each parameter of the suffix: 1 in the last block.

        A parameter that two blocks share counts for the block nearer to the input. Parameters that are missing here
        belong to the head.
        """
        depths: dict[nn.Parameter, int] = {}
        for index, parameters in enumerate(parameters_by_block(self.network, self.blocks)):
            first_use = max(index, self.freeze_depth)  # read in a frozen block, used after the freeze line
            depths = dict.fromkeys(parameters, len(self.blocks) - first_use) | depths
        return depths

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """Return CPU copies of all tensors that training can change, for ``load_state_dict(..., strict=False)``."""
        frozen = {id(tensor) for tensor in (*self.prefix.parameters(), *self.prefix.buffers())}
        tensors = self.state_dict(keep_vars=True)
        memory_format = torch.contiguous_format  # required by safetensors
        return {
            name: tensor.detach().cpu().clone(memory_format=memory_format)
            for name, tensor in tensors.items()
            if id(tensor) not in frozen
        }

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Moving replaces buffers, and the halves hold references to some of them.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for half in self._halves:
            half._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def build_classifier(config: NetworkConfig, num_classes: int, image_size: int, seed: int) -> Classifier:
    """Return a classifier for ``num_classes`` and images of ``image_size`` pixels, on the CPU in channels_last.

    The same arguments and seed give bit-identical weights, independent of the process's history.

    Raises:
        BackboneError: see ``create_backbone`` and ``truncate_network``.
    """
    base = pretrained(config.backbone, config.weights, image_size, seed)
    network = copy.deepcopy(base.network)
    network, blocks, widths = truncate_network(network, base.blocks, config.truncate, config.head_features)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # seeded again: the head's weights don't depend on the backbone's random numbers
        head = build_head(config.head, widths or (base.num_features,), num_classes, config.dropout)
    return Classifier(network, blocks, freeze_depth(config.freeze_fraction, len(blocks)), head)


def freeze_depth(freeze_fraction: float, num_blocks: int) -> int:
    """Return the number of blocks that a fraction freezes, rounded to the nearest integer."""
    return round(freeze_fraction * num_blocks)
