"""How images become training batches: batch size, augmentation, class balance and mixing."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from data.frozen_model import FrozenModel, as_pydantic_validator
from data.loading.augmentation import validate_augmentation
from data.loading.class_balance import Balance
from data.loading.mixup import Mix


class BatchConfig(FrozenModel):
    """How training batches are made.

    Attributes:
        batch_size: pictures in a batch.
        augmentation: a policy of ``data.loading.augmentation``, a classic, or several with ``+`` between.
        balance: what is done about classes of different size: ``weights`` in the loss, a ``sampler`` that draws every
            class alike, or ``oversample``, which shows small classes again, augmented.
        mix: lay two pictures of a batch over each other, labels too.
    """

    batch_size: int = Field(default=32, ge=1)
    augmentation: Annotated[str, AfterValidator(as_pydantic_validator(validate_augmentation))] = "light"
    balance: Balance = "none"
    mix: Mix = "none"
