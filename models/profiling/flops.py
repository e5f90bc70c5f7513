"""What a classifier costs: parameters, work for a picture, bytes."""

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

BYTES = 4  # of a number in float32


class ModelCost(FrozenModel):
    """What a classifier costs.

    Attributes:
        parameters: of the blocks that are left after truncation, and of the head.
        flops: floating-point operations for one picture, of convolutions and matrix products: two for a multiply-add.
        bytes: of its float32 weights, running statistics included.
    """

    parameters: int
    flops: int
    bytes: int


def model_cost(config: NetworkConfig, num_classes: int, image_size: int) -> ModelCost:
    """Return what a classifier of ``classes`` costs for pictures of ``image_size`` pixels a side; it needs no weights.

    Raises:
        BackboneError: see ``models.classifier.build_classifier``.
    """
    with torch.device("meta"):  # shapes alone: nothing is initialized, nothing computed
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
        bytes=BYTES * sum(tensor.numel() for tensor in classifier.state_dict().values()),
    )
