"""The cost of a classifier: parameters, floating-point operations and size."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from data.frozen_model import FrozenModel
from models.backbones.factory import create_backbone
from models.freezing.blocks import find_blocks
from models.freezing.truncation import truncate_network
from models.heads.build import build_head
from models.trial_config import NetworkConfig

BYTES_PER_FLOAT32 = 4


class ModelCost(FrozenModel):
    """The cost of a classifier.

    Attributes:
        parameters: number in the blocks that remain after truncation, and in the head.
        flops: floating-point operations per image in convolutions and matrix products; a multiply-add counts as two.
        bytes: size of the float32 weights, including batch norm statistics.
    """

    parameters: int
    flops: int
    bytes: int


@torch.no_grad()
def count_flops(modules: Sequence[nn.Module], image_size: int) -> list[int]:
    """Return the floating-point operations of modules that follow each other, for one image.

    It is an image of zeros: torch's meta device, which computes shapes alone, imports the compiler, and takes longer.
    Attention is computed by matrix products, because torch counts no others.
    """
    flops, x = [], torch.zeros(1, 3, image_size, image_size)
    with sdpa_kernel(SDPBackend.MATH):
        for module in modules:
            with FlopCounterMode(display=False) as counter:
                x = module(x)
            flops.append(counter.get_total_flops())
    return flops


@functools.cache
def model_cost(config: NetworkConfig, num_classes: int, image_size: int) -> ModelCost:
    """Return the cost of a classifier for images of ``image_size`` x ``image_size`` pixels, without loading weights.

    Raises:
        BackboneError: see ``models.classifier.build_classifier``.
    """
    with torch.random.fork_rng(devices=[]):
        backbone = create_backbone(config.backbone, "none", image_size)
        blocks = find_blocks(backbone.network, image_size)
        network, _, widths = truncate_network(backbone.network, blocks, config.truncate, config.head_features)
        head = build_head(config.head, widths or (backbone.num_features,), num_classes, config.dropout)
    classifier = nn.Sequential(network, head).eval()
    (flops,) = count_flops([classifier], image_size)
    return ModelCost(
        parameters=sum(parameter.numel() for parameter in classifier.parameters()),
        flops=flops,
        bytes=BYTES_PER_FLOAT32 * sum(tensor.numel() for tensor in classifier.state_dict().values()),
    )
