"""Augmentation of training images with Albumentations, selected by name.

A name is a strength (none, light, medium, strong), a transform (flip, rotate, shift, crop, color,
brightness_contrast, cutout), or several joined by ``+``, such as ``flip+crop+cutout``. To add one, write a function
that takes the image size and returns Albumentations transforms, and register it in ``STRENGTHS`` or ``TRANSFORMS``, or
offer it as an entry point of your own package.

Albumentations and numpy are imported when an augmentation is built: validation does not need them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from data.errors import SettingError, did_you_mean
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
    transforms = [transform for part in _parts(name) for transform in _factory(part)(image_size)]
    return Augmentation(transforms) if transforms else None


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


def _factory(part: str) -> Callable[[int], Transforms]:
    """Return the function of a part of a name; ours precede those of other packages."""
    ours = STRENGTHS | TRANSFORMS
    factory: Callable[[int], Transforms] = ours[part] if part in ours else plugins("augmentations")[part].load()
    return factory


class _Albumentations:
    """Albumentations, imported on first use."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  Albumentations is untyped
        import albumentations

        return getattr(albumentations, name)


A = _Albumentations()


def _affine(shift: float = 0.0, zoom: float = 0.0, rotate: float = 0.0) -> Any:  # noqa: ANN401  Albumentations is untyped
    """Shift and zoom by a fraction of the side, rotate by degrees; the border is filled by reflection."""
    import cv2

    return A.Affine(
        translate_percent=(-shift, shift),
        scale=(1 - zoom, 1 + zoom),
        rotate=(-rotate, rotate),
        border_mode=cv2.BORDER_REFLECT_101,
        p=0.8,
    )


def _cutout() -> Any:  # noqa: ANN401  Albumentations is untyped
    """One or two gray holes, each 15 to 35 % of the image side."""
    sides = (0.15, 0.35)
    return A.CoarseDropout(num_holes_range=(1, 2), hole_height_range=sides, hole_width_range=sides, fill=128, p=0.5)


STRENGTHS: dict[str, Callable[[int], Transforms]] = {
    "none": lambda _: [],
    # Safe for digits and text: no flips, small rotations.
    "light": lambda _: [_affine(shift=0.06, zoom=0.1, rotate=8), A.RandomBrightnessContrast(0.15, 0.15, p=0.5)],
    # For photos: flips, crops and slight changes of color.
    "medium": lambda size: [
        A.RandomResizedCrop((size, size), scale=(0.6, 1.0), ratio=(0.8, 1.25)),
        A.HorizontalFlip(p=0.5),
        _affine(shift=0.06, zoom=0.1, rotate=10),
        A.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.02, p=0.5),
    ],
    # For small photo data sets: larger changes, and cutout.
    "strong": lambda size: [
        A.RandomResizedCrop((size, size), scale=(0.35, 1.0), ratio=(0.75, 1.33)),
        A.HorizontalFlip(p=0.5),
        _affine(shift=0.1, zoom=0.2, rotate=20),
        A.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.05, p=0.8),
        A.ToGray(p=0.1),
        _cutout(),
    ],
}
TRANSFORMS: dict[str, Callable[[int], Transforms]] = {
    "flip": lambda _: [A.HorizontalFlip(p=0.5)],
    "rotate": lambda _: [_affine(rotate=15)],
    "shift": lambda _: [_affine(shift=0.1)],
    "crop": lambda size: [A.RandomResizedCrop((size, size), scale=(0.5, 1.0), ratio=(0.75, 1.33))],
    "color": lambda _: [A.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.03, p=0.8)],
    "brightness_contrast": lambda _: [A.RandomBrightnessContrast(0.2, 0.2, p=0.8)],
    "cutout": lambda _: [_cutout()],
}
