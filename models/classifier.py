"""A backbone cut at its freeze line, with a head for the user's classes.

Shapes: b pictures of s pixels a side, f features, k classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Self

import torch
from torch import Tensor, nn

from models.backbones.pretrained_cache import pretrained
from models.freezing.blocks import Block, parameters_by_block, split
from models.freezing.truncation import truncate_network
from models.heads.build import build_head
from models.trial_config import NetworkConfig


class Classifier(nn.Module):
    """Frozen prefix, trained suffix, head: [b, 3, s, s] -> logits [b, k].

    ``network`` and ``head`` own all parameters and buffers, so that ``state_dict()`` holds them under the library's own
    names after ``network.`` whatever the freeze line is. ``prefix`` and ``suffix`` are the two halves of that same
    network. The prefix computes no gradient, keeps no graph, and stays in eval mode: batch norm keeps its
    statistics bit for bit, and dropout is off.

    Attributes:
        blocks: of the network, first to last.
        freeze_depth: how many leading blocks are frozen.
        takes_features: ``forward`` takes what the prefix gives instead of pictures, and doesn't run the prefix.
    """

    def __init__(self, network: nn.Module, blocks: tuple[Block, ...], freeze_depth: int, head: nn.Module) -> None:
        """Cut the network; its parameters are used as they are, not copied.

        Raises:
            ValueError: ``freeze_depth`` isn't 0..len(blocks).
        """
        super().__init__()
        self.network = network
        self.head = head
        self.blocks = blocks
        self.freeze_depth = freeze_depth
        self.expects_features = False
        # In a tuple, out of torch's sight: registered, the halves would double every name in the state dict.
        self._halves = split(network, blocks, freeze_depth)
        trained = set(self.suffix.parameters()) - set(self.prefix.parameters())
        for parameter in set(network.parameters()) - trained:  # the frozen ones, and what no forward pass uses
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
        """Where the parameters are."""
        return next(self.head.parameters()).device

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [b, k] of normalized pictures [b, 3, s, s], or of what the prefix gives for them."""
        if not self.expects_features:
            with torch.no_grad():
                x = self.prefix(x)
        logits: Tensor = self.head(self.suffix(x))
        return logits

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the suffix and the head; the prefix stays in eval mode."""
        super().train(mode)
        self.suffix.train(mode)
        self.prefix.eval()
        return self

    def trainable_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield what an optimizer may change, by its name in ``state_dict()``."""
        return ((name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad)

    def layer_depths(self) -> dict[nn.Parameter, int]:
        """Return how many blocks each parameter of the suffix is away from the head: 1 in the last block.

        A parameter of two blocks counts for the one nearer the input; what isn't in it is the head's.
        """
        found: dict[nn.Parameter, int] = {}
        for index, learned in enumerate(parameters_by_block(self.network, self.blocks)):
            nearest = max(index, self.freeze_depth)  # taken in a frozen block, and used behind the line
            found = dict.fromkeys(learned, len(self.blocks) - nearest) | found
        return found

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """Return a copy on the CPU of what training can change; ``load_state_dict(..., strict=False)`` takes it."""
        frozen = {id(tensor) for tensor in (*self.prefix.parameters(), *self.prefix.buffers())}
        tensors = self.state_dict(keep_vars=True)
        form = torch.contiguous_format  # safetensors takes no other
        return {n: t.detach().cpu().clone(memory_format=form) for n, t in tensors.items() if id(t) not in frozen}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Buffers are replaced when they move, and the halves hold some of them by themselves.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for half in self._halves:
            half._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def build_classifier(config: NetworkConfig, num_classes: int, image_size: int, seed: int | None = None) -> Classifier:
    """Return a classifier of ``classes`` for pictures of ``image_size`` pixels a side, on the CPU in channels_last.

    The same arguments and seed give the same weights bit for bit, whatever ran before. ``seed`` is drawn from torch's
    random state if it isn't given, and nothing else is.

    Raises:
        BackboneError: see ``models.backbones.factory.create_backbone`` and ``models.freezing.truncation.truncate_network``.
    """
    seed = int(torch.randint(2**31, ())) if seed is None else seed
    pristine = pretrained(config.backbone, config.weights, image_size, seed)
    network, blocks, widths = truncate_network(pristine.copy(), pristine.blocks, config.truncate, config.head_features)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # how many numbers the backbone drew doesn't matter for the head
        head = build_head(config.head, widths or (pristine.num_features,), num_classes, config.dropout)
    return Classifier(network, blocks, freeze_depth(config.freeze_fraction, len(blocks)), head)


def freeze_depth(freeze_fraction: float, blocks: int) -> int:
    """Return how many of ``blocks`` blocks a fraction freezes, rounded to the nearest."""
    return round(freeze_fraction * blocks)
