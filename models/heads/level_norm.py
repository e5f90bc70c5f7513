"""Normalization of concatenated feature levels to the same scale.

Shapes: b images, f features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

EPSILON = 1e-6  # added to the mean square: a level can be all zeros


class PerLevelRMSNorm(nn.Module):
    """Divides each level of features [b, f] by its root mean square; has no parameters."""

    def __init__(self, widths: Sequence[int]) -> None:
        """Take the number of features of each level, in order; their sum is f."""
        super().__init__()
        self._widths = list(widths)

    def forward(self, x: Tensor) -> Tensor:
        """Return [b, f]."""
        levels = torch.split(x, self._widths, dim=1)
        # Elementary operations, because the ONNX exporter does not support rms_norm.
        return torch.cat([level * (level.square().mean(1, keepdim=True) + EPSILON).rsqrt() for level in levels], dim=1)
