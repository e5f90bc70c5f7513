"""Explanations of a packaged model's predictions: the evidence for a class in an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from data.dataset.value_range import stretched
from data.preprocessing import Pixels, Preprocessing, normalize, to_pixels, to_rgb
from models.evaluation.class_activation import ClassActivation
from models.evaluation.evidence_overlay import Floats, draw_overlay, resize_map
from models.packaging.export import PackageMember

SIDE = 256  # positions per side of the evidence: the maps of all networks are enlarged to it


class PreparedImage(NamedTuple):
    """An image to be explained: a small version to show, and the pixels [s, s, 3] that each network sees."""

    shown: Image.Image
    pixels: tuple[Pixels, ...]


class Explainer:
    """Draws the evidence for classes that the networks of a package find in images."""

    def __init__(self, members: Sequence[PackageMember]) -> None:
        """Take the trained networks, which are put into eval mode.

        Raises:
            BackboneError: see ``ClassActivation``.
        """
        self._members = [
            (ClassActivation(member.classifier, member.config.preprocessing.image_size), member) for member in members
        ]

    def prepare(self, image: Image.Image, max_size: int) -> PreparedImage:
        """Return an image of ``decode_image`` to be explained; the overlay is at most ``max_size`` px wide and high."""
        shown = stretched(image)
        shown.thumbnail((max_size, max_size))
        preprocessings = [member.config.preprocessing for _, member in self._members]
        return PreparedImage(shown, tuple(to_pixels(to_rgb(image, each.value_range), each) for each in preprocessings))

    def overlays(self, images: Sequence[PreparedImage], classes: Sequence[int]) -> list[Image.Image]:
        """Return each image in gray with the evidence for its class in color.

        One pass of a network computes all images, several times faster than a pass for each.
        """
        evidence = self.evidence([image.pixels for image in images], classes)
        return [draw_overlay(image.shown, each) for image, each in zip(images, evidence, strict=True)]

    def evidence(self, pixels: Sequence[Sequence[Pixels]], classes: Sequence[int]) -> Floats:
        """Return the evidence [b, h, w] for classes [b] in the central squares of images, given for each network.

        It is the weighted mean of the networks' class activation maps, in the unit of their logits; 0 outside a crop.
        """
        total = np.zeros((len(pixels), SIDE, SIDE), dtype=np.float32)
        for (activation, member), inputs in zip(self._members, zip(*pixels, strict=True), strict=True):
            preprocessing = member.config.preprocessing
            images = torch.from_numpy(normalize(np.stack(inputs), preprocessing))
            maps = activation.maps(images, torch.tensor(classes)).numpy()
            total += member.weight * np.stack([_in_square(each, preprocessing) for each in maps])
        return total


def _in_square(values: Floats, preprocessing: Preprocessing) -> Floats:
    """Return a map of a network's crop in the central square of the image: [SIDE, SIDE], with the same sum."""
    side = max(1, round(SIDE * preprocessing.crop_fraction))
    border = (SIDE - side) // 2
    enlarged = resize_map(values, side) * (values.size / side**2)
    return np.pad(enlarged, ((border, SIDE - side - border), (border, SIDE - side - border)))
