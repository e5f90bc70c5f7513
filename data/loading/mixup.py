"""Mixup and cutmix of a batch of tensors.

Shapes: b = batch size, images [b, 3, s, s], k = number of classes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

ALPHA = {"mixup": 0.2, "cutmix": 1.0}  # parameter of the Beta distribution, as in the papers


def apply_mixup(
    x: torch.Tensor, y: torch.Tensor, mix: Literal["mixup", "cutmix"], num_classes: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images mixed with other images of the batch, and their soft labels, float32 [b, k].

    mixup blends the whole images, cutmix replaces a rectangle. Labels are mixed in the same proportion.
    """
    shares = torch.nn.functional.one_hot(y, num_classes).float()
    order = torch.from_numpy(rng.permutation(len(x)))
    image_order = order.to(x.device, non_blocking=True)  # images may be on a GPU; labels are on the CPU
    lam = float(rng.beta(ALPHA[mix], ALPHA[mix]))
    if mix == "mixup":
        x = torch.lerp(x[image_order], x, lam)
    else:
        top, bottom, left, right = _rand_bbox(x.shape[-1], lam, rng)
        x = x.clone(memory_format=torch.preserve_format)
        x[..., top:bottom, left:right] = x[image_order][..., top:bottom, left:right]
        lam = 1 - (bottom - top) * (right - left) / x.shape[-1] ** 2
    return x, torch.lerp(shares[order], shares, lam)


def _rand_bbox(size: int, lam: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Return top, bottom, left and right of a random square with area ``1 - lam``, clipped to the image."""
    half = size * (1 - lam) ** 0.5 / 2
    center_y, center_x = rng.uniform(0, size, 2)
    return (
        max(0, round(center_y - half)),
        min(size, round(center_y + half)),
        max(0, round(center_x - half)),
        min(size, round(center_x + half)),
    )
