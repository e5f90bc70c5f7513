"""A small convolutional network that is trained from scratch: what a pretrained one has to beat.

Shapes: b pictures of s pixels a side, c channels.
"""

from __future__ import annotations

from torch import Tensor, nn

CHANNELS = (32, 64, 128, 256)  # of the four stages; the last is the number of features


class SmallCNN(nn.Module):
    """Four stages of convolution, batch norm, ReLU and pooling, then the mean over all places; 0.4 million parameters.

    Each stage halves the sides, so pictures have 16 pixels a side or more.
    """

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *CHANNELS)
        self.stages = nn.Sequential(*(_stage(c, after) for c, after in zip(inputs, CHANNELS, strict=False)))

    def forward(self, x: Tensor) -> Tensor:
        """Return features [b, c] of pictures [b, 3, s, s]."""
        features: Tensor = self.stages(x).mean((2, 3))
        return features


def _stage(channels: int, after: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, after, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True), nn.MaxPool2d(2))
