"""Builds a classifier head from its specification. Shapes: b images, f features, k classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.heads.spec import hidden_layers

ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}
EPSILON = 1e-6  # added to a level's mean square: a level can be all zeros


def build_head(spec: str, widths: Sequence[int], num_classes: int, dropout: float) -> nn.Module:
    """Return a module that turns features [b, f] into logits [b, k], given the number of features of each level.

    Several feature levels are each divided by their root mean square first: activations of the last blocks are many
    times smaller than those of the first blocks and would have little influence (Head2Toe, see
    ``models.trial_config.NetworkConfig``, scales each level to the same norm). Dropout precedes each linear layer.

    Raises:
        SettingError: see ``hidden_layers``.
    """
    layers: list[nn.Module] = [PerLevelRMSNorm(widths)] if len(widths) > 1 else []
    in_features = sum(widths)
    for hidden in hidden_layers(spec):
        layers += [nn.Dropout(dropout), nn.Linear(in_features, hidden.units)]
        layers += [nn.BatchNorm1d(hidden.units)] if hidden.norm else []
        layers += [ACTIVATIONS[hidden.activation]()]
        in_features = hidden.units
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(in_features, num_classes))


class PerLevelRMSNorm(nn.Module):
    """Divides each level of features [b, f] by its root mean square; has no parameters."""

    def __init__(self, widths: Sequence[int]) -> None:
        """Take the number of features of each level, in order; their sum is f."""
        super().__init__()
        self._widths = list(widths)

    def forward(self, x: Tensor) -> Tensor:
        """Return [b, f]."""
        levels = torch.split(x, self._widths, dim=1)
        return torch.cat([level * self._scale(level) for level in levels], dim=1)

    def scales(self, x: Tensor) -> Tensor:
        """Return the factors [b, f] by which ``forward`` multiplies the features."""
        levels = torch.split(x, self._widths, dim=1)
        return torch.cat([self._scale(level).expand_as(level) for level in levels], dim=1)

    @staticmethod
    def _scale(level: Tensor) -> Tensor:
        # Elementary operations, because the ONNX exporter does not support rms_norm.
        return (level.square().mean(1, keepdim=True) + EPSILON).rsqrt()
