"""Overlays of class activation maps: the evidence for a class in color over the image in gray."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float32]

# Of the colormap inferno (Smith and van der Walt 2015), whose lightness grows evenly; between them it is interpolated.
INFERNO = ((0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85), (227, 89, 51), (249, 140, 10),
           (249, 201, 50), (252, 255, 164))  # fmt: skip
MAX_OPACITY = 0.75  # of the strongest evidence; without evidence the image is not covered
OUTSIDE_BRIGHTNESS = 0.45  # of what the network does not see


def draw_overlay(image: Image.Image, evidence: Floats) -> Image.Image:
    """Return an RGB image in gray with the positive ``evidence`` [h, w] for a class over its central square.

    The strongest evidence of an image has the brightest color, so that colors of two images can't be compared.
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    gray = np.asarray(image.convert("L").convert("RGB"), dtype=np.float32)
    pixels = OUTSIDE_BRIGHTNESS * gray
    square = np.s_[top : top + side, left : left + side]
    strength = resize_map(_positive_share(evidence), side).clip(0, 1)
    opacity = MAX_OPACITY * np.sqrt(strength)[..., None]
    pixels[square] = (1 - opacity) * gray[square] + opacity * inferno(strength)
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def _positive_share(evidence: Floats) -> Floats:
    """Return the positive values as a fraction of the largest; zeros if none is positive."""
    positive = np.maximum(evidence, 0)
    return np.asarray(positive / (positive.max() or 1), dtype=np.float32)


def inferno(values: Floats) -> Floats:
    """Return the colors [h, w, 3], 0 to 255, of values [h, w] from 0 to 1."""
    anchors = np.linspace(0, 1, len(INFERNO))
    channels = [np.interp(values, anchors, channel) for channel in zip(*INFERNO, strict=True)]
    return np.stack(channels, axis=-1).astype(np.float32)


def resize_map(values: Floats, side: int) -> Floats:
    """Return a map [h, w] at the size [side, side], smooth between its positions."""
    resized = Image.fromarray(values.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.float32)
