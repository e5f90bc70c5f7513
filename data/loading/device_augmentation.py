"""Augmentation and normalization of whole batches with torch, for a GPU, which Albumentations on CPU cores starves.

The transforms of ``data.loading.transforms`` have the same probabilities and ranges as with Albumentations; each
image's are drawn with its own seed. Results differ in details:

- All geometric transforms of an image are one affine map and one interpolation, before the others. So after a crop,
  shifts and rotations show pixels from outside the crop where the image has them, and the reflected border repeats the
  outermost pixel.
- ``ColorJitter`` changes brightness, contrast, saturation and hue in this order, not in a random one. The order matters
  only for values that are clipped, and for the brightness of a hue.
- Values are not rounded, while Albumentations rounds down after most transforms.

Shapes: b = batch size, t = number of transforms, s = image size in pixels, 3 channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from data.loading.augmentation import described_transforms
from data.loading.transforms import (
    Affine,
    BrightnessContrast,
    ColorJitter,
    Cutout,
    GeometricTransform,
    HorizontalFlip,
    PixelTransform,
    RandomResizedCrop,
    ToGray,
)
from data.preprocessing import Pixels, Preprocessing

Floats = npt.NDArray[np.float64]

NUM_DRAWS = 23  # random numbers per transform; the first one determines whether it is applied
CROP_ATTEMPTS = 10  # as in Albumentations and torchvision
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue
HUE_OFFSETS = (5.0, 3.0, 1.0)  # of red, green and blue, in sixths of a turn


def augments_on(device: torch.device, name: str) -> bool:
    """Return whether images are augmented on the device: it is a GPU, and Albumentations is not needed for ``name``."""
    return device.type == "cuda" and described_transforms(name) is not None


class DeviceAugmentation:
    """Transforms of whole batches on a device, followed by ``data.preprocessing.normalize``."""

    def __init__(self, name: str, preprocessing: Preprocessing, device: torch.device) -> None:
        """Take the name of an augmentation that consists of ``data.loading.transforms``."""
        self._transforms = described_transforms(name) or ()
        self._size = preprocessing.image_size
        self._device = device
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (preprocessing.mean, preprocessing.std))
        self._factor, self._offset = (
            values.float().reshape(1, 3, 1, 1).to(device) for values in (1 / (255 * std), -mean / std)
        )

    def __call__(self, pixels: Pixels, seeds: npt.NDArray[np.uint32], is_augmented: npt.NDArray[np.bool_]) -> Tensor:
        """Return normalized images, float32 [b, 3, s, s] in channels_last format.

        Args:
            pixels: uint8 [b, s, s, 3].
            seeds: [b]; an image's transforms depend only on its own seed.
            is_augmented: [b]; the other images are unchanged.
        """
        images = self._to_device(pixels).permute(0, 3, 1, 2).float()
        if self._transforms and is_augmented.any():
            draws = random_numbers(seeds, len(self._transforms))
            draws[~is_augmented] = 1.0  # no probability is above it
            images = self._transformed(images, draws)
        images = torch.addcmul(self._offset, images, self._factor)
        return images.contiguous(memory_format=torch.channels_last)

    def _to_device(self, array: npt.NDArray[np.generic]) -> Tensor:
        values = torch.from_numpy(array)
        if self._device.type == "cuda":
            values = values.pin_memory()  # torch does not reuse this memory before the copy has ended
        return values.to(self._device, non_blocking=True)

    def _transformed(self, images: Tensor, draws: Floats) -> Tensor:
        """Transform images [b, 3, s, s] of values 0 to 255, given random numbers [b, t, NUM_DRAWS]."""
        matrix, is_mapped = np.eye(3), False
        pixel_transforms, columns = [], []
        for position, transform in enumerate(self._transforms):
            if isinstance(transform, GeometricTransform):
                matrix, is_mapped = matrix @ source_matrices(transform, draws[:, position], self._size), True
            else:
                pixel_transforms.append(transform)
                columns.append(pixel_parameters(transform, draws[:, position], self._size))
        if is_mapped:
            columns.append(matrix[:, :2].reshape(-1, 6))
        parameters = self._to_device(np.concatenate(columns, axis=1, dtype=np.float32))  # one copy for all transforms
        parts = torch.split(parameters, [part.shape[1] for part in columns], dim=1)
        if is_mapped:
            grid = _source_positions(parts[-1].reshape(-1, 2, 3), self._size)
            images = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
        for transform, part in zip(pixel_transforms, parts, strict=False):
            images = apply_pixel_transform(transform, images, part[:, :, None, None, None].unbind(1))
        return images


def random_numbers(seeds: npt.NDArray[np.uint32], num_transforms: int) -> Floats:
    """Return numbers in [0, 1) for each image, [b, t, NUM_DRAWS], from seeds [b]."""
    shape = (num_transforms, NUM_DRAWS)
    return np.stack([np.random.default_rng(seed).random(shape) for seed in seeds.tolist()])


def source_matrices(transform: GeometricTransform, draws: Floats, size: int) -> Floats:
    """Return maps from positions in the transformed image to positions in the original, [b, 3, 3].

    Positions range from -1 to 1 between the outer edges of the image. The draws are [b, NUM_DRAWS].
    """
    match transform:
        case HorizontalFlip(p):
            linear, offset = np.diag([-1.0, 1.0]), np.zeros(2)
        case RandomResizedCrop():
            p = 1.0
            linear, offset = _crop(transform, draws, size)
        case Affine(p=p):
            linear, offset = _inverse_affine(transform, draws, size)
    matrices = np.tile(np.eye(3), (len(draws), 1, 1))
    is_applied = (draws[:, 0] < p)[:, None, None]
    np.copyto(matrices[:, :2, :2], linear, where=is_applied)
    np.copyto(matrices[:, :2, 2], offset, where=is_applied[:, 0])
    return matrices


def _crop(transform: RandomResizedCrop, draws: Floats, size: int) -> tuple[Floats, Floats]:
    """Return the linear part [b, 2, 2] and the offset [b, 2] of a crop; the whole image if no attempt fits into it."""
    area = size**2 * _uniform(draws[:, 1 : 1 + CROP_ATTEMPTS], *transform.scale)
    low, high = (math.log(ratio) for ratio in transform.ratio)
    ratio = np.exp(_uniform(draws[:, 11 : 11 + CROP_ATTEMPTS], low, high))
    sides = np.rint(np.sqrt(np.stack([area * ratio, area / ratio], axis=2)))  # [b, CROP_ATTEMPTS, 2]
    fits = sides.max(axis=2) <= size
    first = sides[np.arange(len(sides)), fits.argmax(axis=1)]
    side = np.where(fits.max(axis=1, keepdims=True), first, size)
    start = np.floor((size - side + 1) * draws[:, 21:23])
    return (side / size)[:, :, None] * np.eye(2), (2 * start + side) / size - 1


def _inverse_affine(transform: Affine, draws: Floats, size: int) -> tuple[Floats, Floats]:
    """Return the linear part [b, 2, 2] and the offset [b, 2] of the inverse of zoom, rotation, and shift."""
    shift = np.trunc(size * _uniform(draws[:, 1:3], -transform.shift, transform.shift)) * 2 / size  # whole pixels
    zoom = _uniform(draws[:, 3:5], 1 - transform.zoom, 1 + transform.zoom)
    angle = np.deg2rad(_uniform(draws[:, 5], -transform.rotate, transform.rotate))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1)
    linear = rotation / zoom[:, :, None]
    return linear, -(linear @ shift[:, :, None])[:, :, 0]


def _source_positions(matrices: Tensor, size: int) -> Tensor:
    """Return for each pixel its position in the original, [b, s, s, 2], given the first rows of maps, [b, 2, 3].

    ``torch.nn.functional.affine_grid`` multiplies matrices, in TF32 on a GPU: errors of a twentieth of a pixel.
    """
    positions = (2 * torch.arange(size, device=matrices.device) + 1) / size - 1
    x, y, offset = matrices[:, None, None].unbind(dim=-1)  # [b, 1, 1, 2]
    return positions[:, None] * x + positions[:, None, None] * y + offset


def pixel_parameters(transform: PixelTransform, draws: Floats, size: int) -> Floats:
    """Return the parameters of ``apply_pixel_transform``, [b, any], from draws [b, NUM_DRAWS]."""
    is_applied = draws[:, :1] < transform.p
    match transform:
        case BrightnessContrast(brightness, contrast):
            factor, offset = 1 + _spread(draws[:, 1:2], contrast), 255 * _spread(draws[:, 2:3], brightness)
            return np.where(is_applied, np.hstack([factor, offset]), [1.0, 0.0])
        case ColorJitter():
            unchanged = np.array([1.0, 1.0, 1.0, 0.0])
            return np.where(is_applied, unchanged + _spread(draws[:, 1:5], np.array(transform[:4])), unchanged)
        case ToGray():
            return is_applied.astype(np.float64)
        case Cutout():
            return is_applied * _holes(transform, draws, size)


def _holes(transform: Cutout, draws: Floats, size: int) -> Floats:
    """Return top, left, bottom and right of each hole, [b, 4 * max_holes]; all are 0 for those that are left out."""
    holes = draws[:, 2 : 2 + 4 * transform.max_holes].reshape(len(draws), transform.max_holes, 4)
    side = np.floor(size * _uniform(holes[:, :, :2], *transform.sides))
    start = np.floor((size - side + 1) * holes[:, :, 2:])
    count = np.floor(1 + transform.max_holes * draws[:, 1])
    is_used = np.arange(transform.max_holes) < count[:, None]
    return np.asarray(np.dstack([start, start + side]) * is_used[:, :, None]).reshape(len(draws), -1)


def _uniform(draws: Floats, low: float | Floats, high: float | Floats) -> Floats:
    return low + (high - low) * draws


def _spread(draws: Floats, limit: float | Floats) -> Floats:
    return _uniform(draws, -limit, limit)


def apply_pixel_transform(transform: PixelTransform, images: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Return transformed images [b, 3, s, s], values 0 to 255, given parameters [b, 1, 1, 1] each."""
    match transform:
        case BrightnessContrast():
            factor, offset = parameters
            return torch.addcmul(offset, images, factor).clamp_(0, 255)
        case ColorJitter():
            return _jitter(images, *parameters)
        case ToGray():
            return torch.where(parameters[0] > 0, _gray(images), images)
        case Cutout():
            return _fill(images, torch.stack(list(parameters), dim=1).reshape(len(images), -1, 4, 1), transform.fill)


def _jitter(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    images = (images * brightness).clamp_(0, 255)
    images = torch.lerp(_gray(images).mean(dim=(2, 3), keepdim=True), images, contrast).clamp_(0, 255)
    images = torch.lerp(_gray(images), images, saturation).clamp_(0, 255)
    return _shift_hue(images, hue)


def _gray(images: Tensor) -> Tensor:
    red, green, blue = (weight * channel for weight, channel in zip(LUMA, images.tensor_split(3, dim=1), strict=True))
    return red + green + blue


def _shift_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Shift the hue; the largest and the smallest value of a pixel are unchanged, as in HSV."""
    red, green, blue = images.tensor_split(3, dim=1)
    top, bottom = images.amax(dim=1, keepdim=True), images.amin(dim=1, keepdim=True)
    chroma = top - bottom
    sixths = torch.where(
        top == red, green - blue, torch.where(top == green, 2 * chroma + blue - red, 4 * chroma + red - green)
    ) / chroma.clamp(min=1e-6)
    shifted = sixths + 6 * turns
    channels = [
        top - chroma * torch.minimum(position, 4 - position).clamp_(0, 1)
        for position in ((shifted + offset).remainder(6) for offset in HUE_OFFSETS)
    ]
    return torch.cat(channels, dim=1)


def _fill(images: Tensor, holes: Tensor, value: int) -> Tensor:
    """Fill holes [b, number of holes, 4, 1] (top, left, bottom, right)."""
    positions = torch.arange(images.shape[-1], device=images.device)
    top, left, bottom, right = holes.unbind(2)
    rows, columns = (positions >= top) & (positions < bottom), (positions >= left) & (positions < right)
    is_hole = (rows[:, :, :, None] & columns[:, :, None, :]).any(dim=1, keepdim=True)
    return images.masked_fill(is_hole, value)
