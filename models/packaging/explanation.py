"""Explanations of a packaged model's predictions: which parts of an image speak for a class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from data.preprocessing import Preprocessing, normalize, to_pixels, to_rgb
from models.evaluation.class_activation import ClassActivation
from models.evaluation.evidence_overlay import Floats, draw_overlay, resize_map
from models.packaging.export import PackageMember

SIDE = 256  # positions per side of the evidence: the maps of all networks are enlarged to it


class Explainer:
    """Shows where the networks of a package see a class."""

    def __init__(self, members: Sequence[PackageMember]) -> None:
        """Take the trained networks, which are put into eval mode.

        Raises:
            BackboneError: see ``ClassActivation``.
        """
        self._members = [
            (ClassActivation(member.classifier, member.config.preprocessing.image_size), member) for member in members
        ]

    def evidence(self, image: Image.Image, class_index: int) -> Floats:
        """Return the evidence [h, w] for a class in the central square of an image of ``decode_image``.

        It is the weighted mean of the networks' class activation maps, in the unit of their logits; 0 outside a crop.
        """
        maps = [
            member.weight * _in_square(_map(activation, image, member, class_index), member.config.preprocessing)
            for activation, member in self._members
        ]
        return np.asarray(np.sum(maps, axis=0), dtype=np.float32)

    def overlay(self, image: Image.Image, shown: Image.Image, class_index: int) -> Image.Image:
        """Return ``shown``, a version of the image at any scale, in gray with the evidence for a class in color."""
        return draw_overlay(shown, self.evidence(image, class_index))


def _map(activation: ClassActivation, image: Image.Image, member: PackageMember, class_index: int) -> Floats:
    preprocessing = member.config.preprocessing
    pixels = to_pixels(to_rgb(image, preprocessing.value_range), preprocessing)
    images = torch.from_numpy(normalize(pixels[None], preprocessing))
    return activation.maps(images, torch.tensor([class_index]))[0].numpy()


def _in_square(values: Floats, preprocessing: Preprocessing) -> Floats:
    """Return a map of a network's crop in the central square of the image: [SIDE, SIDE], with the same sum."""
    side = max(1, round(SIDE * preprocessing.crop_fraction))
    border = (SIDE - side) // 2
    enlarged = resize_map(values, side) * (values.size / side**2)
    return np.pad(enlarged, ((border, SIDE - side - border), (border, SIDE - side - border)))
