"""A small convolutional network that is trained from scratch: the baseline for pretrained networks.

Shapes: b images of s x s pixels, c channels.
"""

from __future__ import annotations

from torch import Tensor, nn

CHANNELS = (32, 64, 128, 256)  # of the four stages; the last one is the number of features


class SmallCNN(nn.Module):
    """Four stages of convolution, batch norm, ReLU and pooling, then global average pooling; 0.4 million parameters.

    Each stage halves the resolution, so images must have at least 16 x 16 pixels.
    """

    def __init__(self) -> None:
        super().__init__()
        in_channels = (3, *CHANNELS)
        self.stages = nn.Sequential(*(_stage(c_in, c_out) for c_in, c_out in zip(in_channels, CHANNELS, strict=False)))

    def forward(self, x: Tensor) -> Tensor:
        """Return features [b, c] of images [b, 3, s, s]."""
        features: Tensor = self.stages(x).mean((2, 3))
        return features


def _stage(in_channels: int, out_channels: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True), nn.MaxPool2d(2))
