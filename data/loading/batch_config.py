"""Configuration of training batches: batch size, augmentation, class balancing and mixing."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from data.frozen_model import FrozenModel, as_pydantic_validator
from data.loading.augmentation import validate_augmentation

Balance = Literal["none", "weights", "sampler", "oversample"]
Mix = Literal["none", "mixup", "cutmix"]


class BatchConfig(FrozenModel):
    """Configuration of training batches.

    Attributes:
        batch_size: images per batch.
        augmentation: name of an augmentation, see ``data.loading.augmentation``.
        balance: handling of imbalanced classes: ``weights`` in the loss, a ``sampler`` that draws all classes with
            equal probability, or ``oversample``, which repeats images of small classes with augmentation.
        mix: mixup or cutmix of the images and labels in a batch.
    """

    batch_size: int = Field(default=32, ge=1)
    augmentation: Annotated[str, AfterValidator(as_pydantic_validator(validate_augmentation))] = "light"
    balance: Balance = "none"
    mix: Mix = "none"
