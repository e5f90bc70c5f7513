"""How training pictures are varied: policies to choose from by name, each a list that one can read and extend.

Albumentations is imported when a policy is built: it costs seconds, and validation needs none of it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from data.errors import SettingError, did_you_mean
from data.preprocess import Pixels

if TYPE_CHECKING:
    from collections.abc import Callable

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else the import asks the network for a newer release


class Policy:
    """A pipeline of Albumentations whose outcome depends on the seed of each picture alone."""

    def __init__(self, transforms: list[Any]) -> None:
        import albumentations
        import cv2

        cv2.setNumThreads(0)  # trials side by side share the cores; a picture is too small to share out
        self._compose = albumentations.Compose(transforms)

    def __call__(self, picture: Pixels, seed: int) -> Pixels:
        """Return a varied copy of a picture, uint8 [s, s, 3]; the same seed, the same copy."""
        self._compose.set_random_seed(seed)
        return np.asarray(self._compose(image=picture)["image"], dtype=np.uint8)


def build_policy(name: str, image_size: int) -> Policy | None:
    """Return the policy of that name for pictures of ``image_size`` pixels; None for ``none``.

    Raises:
        SettingError: there is no policy of that name.
    """
    if name not in POLICIES:
        raise SettingError(
            f"augmentation must be one of {', '.join(POLICIES)}, got {name!r}{did_you_mean(name, POLICIES)}"
        )
    transforms = POLICIES[name](image_size)
    return Policy(transforms) if transforms else None


def _none(image_size: int) -> list[Any]:
    del image_size
    return []


def _light(image_size: int) -> list[Any]:
    """Nothing that changes what a digit or a word says: no mirror image, small turns."""
    import albumentations as A

    del image_size
    return [_affine(shift=0.06, zoom=0.1, turn=8), A.RandomBrightnessContrast(0.15, 0.15, p=0.5)]


def _medium(image_size: int) -> list[Any]:
    """For photos: mirrored, cropped, in slightly other light."""
    import albumentations as A

    return [
        A.RandomResizedCrop((image_size, image_size), scale=(0.6, 1.0), ratio=(0.8, 1.25)),
        A.HorizontalFlip(p=0.5),
        _affine(shift=0.06, zoom=0.1, turn=10),
        A.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.02, p=0.5),
    ]


def _strong(image_size: int) -> list[Any]:
    """For photos of which there are few: harder, and with holes."""
    import albumentations as A

    return [
        A.RandomResizedCrop((image_size, image_size), scale=(0.35, 1.0), ratio=(0.75, 1.33)),
        A.HorizontalFlip(p=0.5),
        _affine(shift=0.1, zoom=0.2, turn=20),
        A.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.05, p=0.8),
        A.ToGray(p=0.1),
        A.CoarseDropout(num_holes_range=(1, 2), hole_height_range=(0.15, 0.35), hole_width_range=(0.15, 0.35), p=0.5),
    ]


def _affine(shift: float, zoom: float, turn: float) -> Any:  # noqa: ANN401  Albumentations is untyped
    """Shift by a part of the side, zoom by a part, turn by degrees; the border is mirrored, not black."""
    import albumentations as A
    import cv2

    return A.Affine(
        translate_percent=(-shift, shift),
        scale=(1 - zoom, 1 + zoom),
        rotate=(-turn, turn),
        border_mode=cv2.BORDER_REFLECT_101,
        p=0.8,
    )


POLICIES: dict[str, Callable[[int], list[Any]]] = {
    "none": _none,
    "light": _light,
    "medium": _medium,
    "strong": _strong,
}
