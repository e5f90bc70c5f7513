"""Descriptions of the transforms of training images.

They hold the ranges and probabilities, of which both implementations are built: Albumentations' (``to_albumentations``)
and the one for a GPU (``data.loading.device_augmentation``).
"""

from __future__ import annotations

from typing import Any, NamedTuple


class RandomResizedCrop(NamedTuple):
    """Crop a share of the area within ``scale`` and of an aspect ratio within ``ratio``, resized to the image size."""

    scale: tuple[float, float]
    ratio: tuple[float, float]


class HorizontalFlip(NamedTuple):
    """Mirror the image."""

    p: float = 0.5


class Affine(NamedTuple):
    """Shift and zoom by a fraction of the side, rotate by degrees; the border is filled by reflection."""

    shift: float = 0.0
    zoom: float = 0.0
    rotate: float = 0.0
    p: float = 0.8


class BrightnessContrast(NamedTuple):
    """Multiply all values by 1 ± ``contrast``, then add ± ``brightness`` of the value of white."""

    brightness: float
    contrast: float
    p: float


class ColorJitter(NamedTuple):
    """Multiply brightness, contrast and saturation by 1 ± a number, and shift the hue by ± a fraction of a turn."""

    brightness: float
    contrast: float
    saturation: float
    hue: float
    p: float


class ToGray(NamedTuple):
    """Remove the colors."""

    p: float


class Cutout(NamedTuple):
    """One to ``max_holes`` holes of one gray value, each with sides within a range of fractions of the image side."""

    max_holes: int = 2
    sides: tuple[float, float] = (0.15, 0.35)
    fill: int = 128
    p: float = 0.5


GeometricTransform = RandomResizedCrop | HorizontalFlip | Affine
PixelTransform = BrightnessContrast | ColorJitter | ToGray | Cutout
Transform = GeometricTransform | PixelTransform


def to_albumentations(transform: Transform, size: int) -> Any:  # noqa: ANN401  Albumentations is untyped
    """Return the Albumentations transform for images of ``size`` pixels."""
    import albumentations as A
    import cv2

    match transform:
        case RandomResizedCrop(scale, ratio):
            return A.RandomResizedCrop((size, size), scale=scale, ratio=ratio)
        case HorizontalFlip(p):
            return A.HorizontalFlip(p=p)
        case Affine(shift, zoom, rotate, p):
            return A.Affine(
                translate_percent=(-shift, shift),
                scale=(1 - zoom, 1 + zoom),
                rotate=(-rotate, rotate),
                border_mode=cv2.BORDER_REFLECT_101,
                p=p,
            )
        case _:
            return _pixels_to_albumentations(transform)


def _pixels_to_albumentations(transform: PixelTransform) -> Any:  # noqa: ANN401  Albumentations is untyped
    import albumentations as A

    match transform:
        case BrightnessContrast(brightness, contrast, p):
            return A.RandomBrightnessContrast(brightness, contrast, p=p)
        case ColorJitter():
            return A.ColorJitter(**transform._asdict())
        case ToGray(p):
            return A.ToGray(p=p)
        case Cutout(max_holes, sides, fill, p):
            return A.CoarseDropout((1, max_holes), sides, sides, fill=fill, p=p)
