"""An ensemble of trained networks as one network: the weighted mean of their probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Return log(sum_m weight_m * softmax(logits_m)) [b, k] of networks m, whose softmax is the mean itself.

    ``forward`` takes a batch [b, 3, s, s] for each input; s may differ. Several networks may read the same input.
    """

    def __init__(self, networks: Sequence[nn.Module], inputs: Sequence[int], weights: Sequence[float]) -> None:
        """Join networks [b, 3, s, s] -> logits [b, k]; ``inputs`` has the number of the input that each one reads."""
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.inputs = tuple(inputs)
        self.log_weights = tuple(math.log(weight) for weight in weights)

    def forward(self, *images: Tensor) -> Tensor:
        """Return the logarithm of the mean probabilities [b, k]."""
        members = zip(self.networks, self.inputs, self.log_weights, strict=True)
        logits = [network(images[number]).log_softmax(dim=1) + log_weight for network, number, log_weight in members]
        return torch.stack(logits).logsumexp(dim=0)
