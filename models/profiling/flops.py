"""The cost of a classifier: parameters, floating-point operations and size."""

from __future__ import annotations

import torch
from torch import nn
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


def model_cost(config: NetworkConfig, num_classes: int, image_size: int) -> ModelCost:
    """Return the cost of a classifier for images of ``image_size`` x ``image_size`` pixels, without loading weights.

    Raises:
        BackboneError: see ``models.classifier.build_classifier``.
    """
    with torch.device("meta"):  # shapes only: nothing is initialized or computed
        backbone = create_backbone(config.backbone, "none", image_size)
        blocks = find_blocks(backbone.network, image_size)
        network, _, widths = truncate_network(backbone.network, blocks, config.truncate, config.head_features)
        head = build_head(config.head, widths or (backbone.num_features,), num_classes, config.dropout)
        classifier = nn.Sequential(network, head).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            classifier(torch.zeros(1, 3, image_size, image_size))
    return ModelCost(
        parameters=sum(parameter.numel() for parameter in classifier.parameters()),
        flops=counter.get_total_flops(),
        bytes=BYTES_PER_FLOAT32 * sum(tensor.numel() for tensor in classifier.state_dict().values()),
    )
