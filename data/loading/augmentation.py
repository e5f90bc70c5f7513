"""Augmentation of training images with Albumentations, selected by name.

A name is a strength (none, light, medium, strong), a transform (flip, rotate, shift, crop, color,
brightness_contrast, cutout), or several joined by ``+``, such as ``flip+crop+cutout``. To add one, register a tuple of
``data.loading.transforms``, or a function that takes the image size and returns Albumentations transforms, in
``STRENGTHS`` or ``TRANSFORMS``; or offer such a function as an entry point of your own package.

Albumentations and numpy are imported when an augmentation is built: validation does not need them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from data.errors import SettingError, did_you_mean
from data.loading.transforms import (
    Affine,
    BrightnessContrast,
    ColorJitter,
    Cutout,
    HorizontalFlip,
    RandomResizedCrop,
    ToGray,
    Transform,
    to_albumentations,
)
from data.plugins import plugin_version, plugins

if TYPE_CHECKING:
    from data.preprocessing import Pixels

VERSION = 1  # part of the cache keys of augmented images; increment if the meaning of a name changes

Transforms = list[Any]  # Albumentations is untyped


class Augmentation:
    """A sequence of Albumentations transforms whose result depends only on the image and the seed."""

    def __init__(self, transforms: Transforms) -> None:
        import cv2

        cv2.setNumThreads(0)  # parallel trials share the cores; an image is too small for several threads
        self._transforms = transforms

    def __call__(self, image: Pixels, seed: int) -> Pixels:
        """Return an augmented copy of an image, uint8 [s, s, 3], deterministic given the seed."""
        import numpy as np

        # A.Compose would seed all transforms equally, so that those with p=0.5 are applied all together or not at all.
        numpy_rng, python_rng = np.random.default_rng(seed), random.Random(seed)  # noqa: S311
        for transform in self._transforms:
            transform.set_random_state(numpy_rng, python_rng)
            image = transform(image=image)["image"]
        return np.ascontiguousarray(image, dtype=np.uint8)


def build_augmentation(name: str, image_size: int) -> Augmentation | None:
    """Return the augmentation ``name`` for images of ``image_size`` pixels, or None if it has no transforms.

    Raises:
        SettingError: a part of the name is unknown.
    """
    validate_augmentation(name)
    transforms = [transform for part in _parts(name) for transform in _albumentations(part, image_size)]
    return Augmentation(transforms) if transforms else None


def described_transforms(name: str) -> tuple[Transform, ...] | None:
    """Return the transforms of a valid name, or None if a part of it is a function."""
    parts = [(STRENGTHS | TRANSFORMS).get(part) for part in _parts(name)]
    if not all(isinstance(part, tuple) for part in parts):
        return None
    return tuple(transform for part in parts if isinstance(part, tuple) for transform in part)


def validate_augmentation(name: str) -> None:
    """Raise SettingError if a part of ``name`` is unknown; does not import Albumentations."""
    known = [*STRENGTHS, *TRANSFORMS]
    unknown = [part for part in _parts(name) if part not in known]
    if unknown:  # only then, because to look for plugins takes a while
        known += plugins("augmentations")
        unknown = [part for part in unknown if part not in known]
    if unknown:
        raise SettingError(
            f"augmentation must be one of {', '.join(known)}, or several joined by +, "
            f"got {unknown[0]!r}{did_you_mean(unknown[0], known) or '; use one of these'}"
        )


def augmentation_version(name: str) -> tuple[object, ...]:
    """Return the versions on which a cached result depends: ours, and those of packages that offer a part."""
    entries = plugins("augmentations") if {*_parts(name)} - {*STRENGTHS, *TRANSFORMS} else {}
    return VERSION, *(plugin_version(entries[part]) for part in _parts(name) if part in entries)


def _parts(name: str) -> list[str]:
    return [part.strip() for part in name.split("+")]


def _albumentations(part: str, image_size: int) -> Transforms:
    """Return the Albumentations transforms of a part of a name; ours precede those of other packages."""
    ours = STRENGTHS | TRANSFORMS
    found: Part = ours[part] if part in ours else plugins("augmentations")[part].load()
    if isinstance(found, tuple):
        return [to_albumentations(transform, image_size) for transform in found]
    return found(image_size)


# A function gives transforms of Albumentations that data.loading.transforms does not describe.
Part = tuple[Transform, ...] | Callable[[int], Transforms]

STRENGTHS: dict[str, Part] = {
    "none": (),
    # Safe for digits and text: no flips, small rotations.
    "light": (Affine(shift=0.06, zoom=0.1, rotate=8), BrightnessContrast(0.15, 0.15, p=0.5)),
    # For photos: flips, crops and slight changes of color.
    "medium": (
        RandomResizedCrop(scale=(0.6, 1.0), ratio=(0.8, 1.25)),
        HorizontalFlip(),
        Affine(shift=0.06, zoom=0.1, rotate=10),
        ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.02, p=0.5),
    ),
    # For small photo data sets: larger changes, and cutout.
    "strong": (
        RandomResizedCrop(scale=(0.35, 1.0), ratio=(0.75, 1.33)),
        HorizontalFlip(),
        Affine(shift=0.1, zoom=0.2, rotate=20),
        ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.05, p=0.8),
        ToGray(p=0.1),
        Cutout(),
    ),
}
TRANSFORMS: dict[str, Part] = {
    "flip": (HorizontalFlip(),),
    "rotate": (Affine(rotate=15),),
    "shift": (Affine(shift=0.1),),
    "crop": (RandomResizedCrop(scale=(0.5, 1.0), ratio=(0.75, 1.33)),),
    "color": (ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.03, p=0.8),),
    "brightness_contrast": (BrightnessContrast(0.2, 0.2, p=0.8),),
    "cutout": (Cutout(),),
}
