"""Trained networks as the one network of a package: with features as a second output, or several as an ensemble."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class LogitsAndFeatures(nn.Module):
    """A network and its head: images [b, 3, s, s] -> logits [b, k], features [b, f]."""

    def __init__(self, network: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.head = head

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits and the features that the head reads."""
        features: Tensor = self.network(images)
        return self.head(features), features


class Ensemble(nn.Module):
    """Return log(sum_m weight_m * softmax(logits_m)) [b, k] of networks m, whose softmax is the mean itself.

    ``forward`` takes a batch [b, 3, s, s] for each input; s may differ. Several networks may read the same input. If
    the first network is ``LogitsAndFeatures``, its features are the second output.
    """

    def __init__(self, networks: Sequence[nn.Module], inputs: Sequence[int], weights: Sequence[float]) -> None:
        """Join networks [b, 3, s, s] -> logits [b, k]; ``inputs`` has the number of the input that each one reads."""
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.inputs = tuple(inputs)
        self.log_weights = tuple(math.log(weight) for weight in weights)

    def forward(self, *images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the logarithm of the mean probabilities [b, k], and the first network's features if it has any."""
        outputs = [network(images[number]) for network, number in zip(self.networks, self.inputs, strict=True)]
        features = None
        if isinstance(outputs[0], tuple):
            outputs[0], features = outputs[0]
        logits = [
            each.log_softmax(dim=1) + log_weight for each, log_weight in zip(outputs, self.log_weights, strict=True)
        ]
        mean = torch.stack(logits).logsumexp(dim=0)
        return mean if features is None else (mean, features)
