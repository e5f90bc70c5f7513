"""Features of several levels side by side, each brought to the same size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

EPSILON = 1e-6  # added to the mean square: a level may be all zeros


class PerLevelRMSNorm(nn.Module):
    """Divides each level of features [b, f] by its root mean square; nothing is learned."""

    def __init__(self, widths: Sequence[int]) -> None:
        """Take how many of the f features each level has, in order."""
        super().__init__()
        self._widths = list(widths)

    def forward(self, x: Tensor) -> Tensor:
        """Return [b, f]."""
        levels = torch.split(x, self._widths, dim=1)
        # In plain operations: ONNX's exporter takes no rms_norm.
        return torch.cat([level * (level.square().mean(1, keepdim=True) + EPSILON).rsqrt() for level in levels], dim=1)
