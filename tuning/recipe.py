"""What the user asked for: the parameters of a search, their types, defaults and limits in one place.

A searched setting takes one value (``-P lr=1e-3``), a choice (``-P optimizer=adam,adamw``) or a range
(``-P lr=1e-4..1e-2``). The defaults below are the default search space.
"""

from __future__ import annotations

import typing
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from data.augment import check_policy
from data.balance import Balance
from data.errors import SettingError
from data.mixing import Mix
from data.values import Value
from tuning.domains import AS_TYPED, Choice, Range, names, numbers, words


def _known_policies(domain: Choice | Range) -> Choice | Range:
    """Refuse an augmentation that ``data.augment`` doesn't know."""
    for name in domain.options if isinstance(domain, Choice) else ():
        try:
            check_policy(str(name))
        except SettingError as error:
            raise ValueError(str(error)) from None
    return domain


Names = Annotated[Choice | Range, BeforeValidator(names), AS_TYPED]
Optimizers = Annotated[Choice | Range, BeforeValidator(words("adamw", "adam", "sgd")), AS_TYPED]
Schedules = Annotated[Choice | Range, BeforeValidator(words("constant", "step", "cosine", "plateau")), AS_TYPED]
Policies = Annotated[Choice | Range, BeforeValidator(names), AfterValidator(_known_policies), AS_TYPED]
Balances = Annotated[Choice | Range, BeforeValidator(words(*typing.get_args(Balance))), AS_TYPED]
Mixes = Annotated[Choice | Range, BeforeValidator(words(*typing.get_args(Mix))), AS_TYPED]
Rates = Annotated[Choice | Range, BeforeValidator(numbers(1e-8, 10.0, log=True)), AS_TYPED]
Decays = Annotated[Choice | Range, BeforeValidator(numbers(0.0, 1.0, log=True)), AS_TYPED]
Fractions = Annotated[Choice | Range, BeforeValidator(numbers(0.0, 1.0)), AS_TYPED]
Dropouts = Annotated[Choice | Range, BeforeValidator(numbers(0.0, 0.9)), AS_TYPED]
WholeNumbers = Annotated[Choice | Range, BeforeValidator(numbers(1, 4096, whole=True)), AS_TYPED]

SMALLEST_IMAGE, LARGEST_IMAGE = 16, 1024  # px; five halvings of 16 px leave less than one pixel


def _auto_or_number(text: object) -> object:
    """Read ``auto`` as None: the data set decides."""
    return None if text == "auto" else text


class Training(Value):
    """What is trained on what: shared by ``tune``, which searches, and ``train``, which takes one value of each."""

    data: str = Field(
        "demo",
        min_length=1,
        description="a folder of class folders (in train/ val/ test/ if you like), a .csv or .parquet manifest, "
        "a .zip or .tar, s3://bucket/prefix, or 'demo'",
    )
    name: str = Field(
        "",
        pattern=r"^$|^[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}$",
        description="of the experiment and the registered model; empty: the data folder's name",
    )
    max_epochs: int = Field(8, ge=1, le=1000, description="epochs of a trial that is not stopped early")
    cpus_per_trial: int = Field(1, ge=1, le=1024, description="cores, and torch threads, of a trial")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="of the search and of every trial")
    weights: str = Field("auto", min_length=1, description="auto, package, hub, none, or a .pth/.safetensors file")
    image_size: Annotated[int | None, BeforeValidator(_auto_or_number)] = Field(
        None,
        ge=SMALLEST_IMAGE,
        le=LARGEST_IMAGE,
        description="side in pixels that pictures are resized to; empty or 'auto': by the pictures' own size",
    )
    backbone: Names = Field(
        Choice(options=("tf_efficientnet_lite0",)), description="a timm or torchvision classifier's name"
    )
    freeze_fraction: Fractions = Field(Range(low=0.0, high=1.0), description="share of the blocks that stays frozen")
    optimizer: Optimizers = Field(Choice(options=("adamw", "adam", "sgd")), description="what takes the steps")
    lr: Rates | None = Field(
        None, description="learning rate; empty: 1e-4..1e-2 for Adam and AdamW, 1e-3..1e-1 for SGD"
    )
    weight_decay: Decays = Field(Range(low=1e-5, high=1e-1, log=True), description="not of norms and biases")
    lr_scheduler: Schedules = Field(
        Choice(options=("cosine", "constant", "step", "plateau")), description="how the learning rate falls"
    )
    batch_size: WholeNumbers = Field(Choice(options=(16, 32, 64)), description="pictures in a training step")
    dropout: Dropouts = Field(Range(low=0.0, high=0.5), description="before the head's linear layer")
    augmentation: Policies = Field(
        Choice(options=("none", "light", "medium", "strong")),
        description="of training pictures: a strength, or classics such as flip+crop+cutout",
    )
    balance: Balances | None = Field(
        None, description="none, weights, sampler or oversample; empty: searched if classes differ 1.5 times in size"
    )
    mix: Mixes = Field(Choice(options=("none",)), description="none, mixup or cutmix: two training pictures in one")
    leaks: Literal["drop", "keep"] = Field(
        "drop", description="training pictures that are also in a later split that you gave"
    )


class Recipe(Training):
    """One search, as it was asked for."""

    trials: int = Field(16, ge=1, le=100_000, description="how many configurations are tried")
    concurrent: int = Field(0, ge=0, le=1024, description="trials at once; 0: as many as the cores carry")
    gpus_per_trial: float = Field(0.0, ge=0, le=64, description="accelerators of a trial; 0.5 puts two trials on one")
    scheduler: Literal["asha", "none"] = Field("asha", description="what stops hopeless trials early")
