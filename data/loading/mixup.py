"""Two pictures in one: mixup and cutmix, on a whole batch of tensors.

Shapes: b pictures [b, 3, s, s], k classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import torch

Mix = Literal["none", "mixup", "cutmix"]
ALPHA = {"mixup": 0.2, "cutmix": 1.0}  # of the Beta distribution that the shares are drawn from; the papers' choices


def apply_mixup(
    x: torch.Tensor, y: torch.Tensor, how: Mix, num_classes: int, random: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pictures mixed with others of the batch, and the share of each class, float32 [b, k].

    mixup lays another picture over the whole, cutmix puts a piece of it in; labels are mixed by the same shares.
    """
    import torch  # late, because the recipe reads the names above

    shares = torch.nn.functional.one_hot(y, num_classes).float()
    if how == "none":
        return x, shares
    order = torch.from_numpy(random.permutation(len(x)))
    kept = float(random.beta(ALPHA[how], ALPHA[how]))
    if how == "mixup":
        x = torch.lerp(x[order], x, kept)
    else:
        top, bottom, left, right = _rand_bbox(x.shape[-1], kept, random)
        x = x.clone(memory_format=torch.preserve_format)
        x[..., top:bottom, left:right] = x[order][..., top:bottom, left:right]
        kept = 1 - (bottom - top) * (right - left) / x.shape[-1] ** 2
    return x, torch.lerp(shares[order], shares, kept)


def _rand_bbox(size: int, lam: float, random: np.random.Generator) -> tuple[int, int, int, int]:
    """Return top, bottom, left and right of a square of about ``1 - kept`` of the picture, cut off at its border."""
    half = size * (1 - lam) ** 0.5 / 2
    down, across = random.uniform(0, size, 2)
    return (
        max(0, round(down - half)),
        min(size, round(down + half)),
        max(0, round(across - half)),
        min(size, round(across + half)),
    )
