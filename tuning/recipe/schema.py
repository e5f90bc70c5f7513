"""What the user asked for: the parameters of a search, their types, defaults and limits in one place.

A searched setting takes one value (``-P lr=1e-3``), a choice (``-P optimizer=adam,adamw``) or a range
(``-P lr=1e-4..1e-2``). The defaults below are the default search space.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from data.frozen_model import FrozenModel, as_pydantic_validator
from data.loading.augmentation import validate_augmentation
from data.loading.class_balance import Balance
from data.loading.mixup import Mix
from models.heads.spec import HeadFeatures, validate_head
from tuning.common.promotion_types import Gate, Metric
from tuning.recipe.domains import (
    SERIALIZE_AS_TYPED,
    Categorical,
    Domain,
    FloatRange,
    parse_choices,
    parse_names,
    parse_numbers,
)


def _each(check: Callable[[str], None]) -> AfterValidator:
    """Return the validator of a domain that refuses an option that ``check`` raises SettingError for."""
    accept = as_pydantic_validator(check)

    def validate(domain: Domain) -> Domain:
        for option in domain.options:
            accept(str(option))
        return domain

    return AfterValidator(validate)


NameDomain = Annotated[Categorical | FloatRange, BeforeValidator(parse_names), SERIALIZE_AS_TYPED]
OptimizerDomain = Annotated[
    Categorical | FloatRange, BeforeValidator(parse_choices("adamw", "adam", "sgd")), SERIALIZE_AS_TYPED
]
LRSchedulerDomain = Annotated[
    Categorical | FloatRange,
    BeforeValidator(parse_choices("constant", "step", "cosine", "one_cycle", "plateau")),
    SERIALIZE_AS_TYPED,
]
HeadDomain = Annotated[Categorical | FloatRange, BeforeValidator(parse_names), _each(validate_head), SERIALIZE_AS_TYPED]
AugmentationDomain = Annotated[
    Categorical | FloatRange, BeforeValidator(parse_names), _each(validate_augmentation), SERIALIZE_AS_TYPED
]
BalanceDomain = Annotated[
    Categorical | FloatRange, BeforeValidator(parse_choices(*typing.get_args(Balance))), SERIALIZE_AS_TYPED
]
MixDomain = Annotated[
    Categorical | FloatRange, BeforeValidator(parse_choices(*typing.get_args(Mix))), SERIALIZE_AS_TYPED
]
LearningRateDomain = Annotated[
    Categorical | FloatRange, BeforeValidator(parse_numbers(1e-8, 10.0, log=True)), SERIALIZE_AS_TYPED
]
WeightDecayDomain = Annotated[
    Categorical | FloatRange, BeforeValidator(parse_numbers(0.0, 1.0, log=True)), SERIALIZE_AS_TYPED
]
HeadFeaturesDomain = Annotated[
    Categorical | FloatRange, BeforeValidator(parse_choices(*typing.get_args(HeadFeatures))), SERIALIZE_AS_TYPED
]
FractionDomain = Annotated[Categorical | FloatRange, BeforeValidator(parse_numbers(0.0, 1.0)), SERIALIZE_AS_TYPED]
DropoutDomain = Annotated[Categorical | FloatRange, BeforeValidator(parse_numbers(0.0, 0.9)), SERIALIZE_AS_TYPED]
BatchSizeDomain = Annotated[
    Categorical | FloatRange, BeforeValidator(parse_numbers(1, 4096, integer=True)), SERIALIZE_AS_TYPED
]
IntDomain = Annotated[
    Categorical | FloatRange, BeforeValidator(parse_numbers(0, 100, integer=True)), SERIALIZE_AS_TYPED
]
LayerDecayDomain = Annotated[Categorical | FloatRange, BeforeValidator(parse_numbers(0.01, 1.0)), SERIALIZE_AS_TYPED]

SamplerName = Literal["tpe", "random"]  # tuning.search.samplers has what each of them is
MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 16, 1024  # px; five halvings of 16 px leave less than one pixel


def _none_if_auto(text: object) -> object:
    """Read ``auto`` as None: the data set, or what is installed, decides."""
    return None if text == "auto" else text


AUTO = BeforeValidator(_none_if_auto)
ImageSizeDomain = Annotated[
    Categorical | FloatRange,
    BeforeValidator(parse_numbers(MIN_IMAGE_SIZE, MAX_IMAGE_SIZE, integer=True)),
    SERIALIZE_AS_TYPED,
]

EventsForm = Literal["text", "json"]

# What a person or a program sees of a command: of ``tune``, ``resume`` and ``train``; no result depends on it.
QUIET: Any = Field(False, description="print only what matters at the end, and errors")
EVENTS: Any = Field(
    "text", description="json: each event as a JSON line on standard output (docs/events.md), sentences on the other"
)


class TrainingSettings(FrozenModel):
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
    patience: int = Field(
        0, ge=0, le=1000, description="epochs without a lower validation loss that end a trial; 0: off"
    )
    step_epochs: int = Field(0, ge=0, le=1000, description="of lr_scheduler=step, which divides by ten; 0: a third")
    feature_cache: Literal["fp16", "fp32", "off"] = Field(
        "fp16", description="cache the features of frozen blocks for all trials: fp16, fp32, or off"
    )
    cached_augmentations: int = Field(
        4, ge=0, le=1000, description="augmented variants of a picture that reuse keeps; 0: always new"
    )
    backbone: Annotated[NameDomain | None, AUTO] = Field(
        None, description="a timm or torchvision classifier's name; empty or 'auto': those that need no hub"
    )
    image_size: Annotated[ImageSizeDomain | None, AUTO] = Field(
        None, description="side in pixels that pictures are resized to; empty or 'auto': by the pictures' own size"
    )
    truncate: Annotated[IntDomain | None, AUTO] = Field(
        None, description="blocks dropped from the network's end before the head; empty or 'auto': 0, and 3 of many"
    )
    freeze_fraction: FractionDomain = Field(
        FloatRange(low=0.0, high=1.0), description="share of the blocks that stays frozen"
    )
    head_features: HeadFeaturesDomain = Field(
        Categorical(options=("last", "all")),
        description="where all blocks are frozen, the head sees the last one's or all",
    )
    head: HeadDomain = Field(
        Categorical(options=("linear",)),
        description="linear, or hidden layers SIZE[:relu|leaky_relu][:norm] joined by +",
    )
    optimizer: OptimizerDomain = Field(
        Categorical(options=("adamw", "adam", "sgd")), description="what takes the steps"
    )
    lr: LearningRateDomain | None = Field(
        None, description="learning rate; empty: 1e-4..1e-2 for Adam and AdamW, 1e-3..1e-1 for SGD"
    )
    weight_decay: WeightDecayDomain = Field(
        FloatRange(low=1e-5, high=1e-1, log=True), description="not of norms and biases"
    )
    lr_scheduler: LRSchedulerDomain = Field(
        Categorical(options=("cosine", "one_cycle", "constant", "step", "plateau")),
        description="how the learning rate moves",
    )
    layer_decay: LayerDecayDomain = Field(
        Categorical(options=(1.0,)),
        description="each block nearer the input learns at this share of the next one's rate",
    )
    label_smoothing: DropoutDomain = Field(
        Categorical(options=(0.0,)), description="share of a target spread over all classes"
    )
    batch_size: BatchSizeDomain = Field(Categorical(options=(16, 32, 64)), description="pictures in a training step")
    dropout: DropoutDomain = Field(FloatRange(low=0.0, high=0.5), description="before the head's linear layer")
    augmentation: AugmentationDomain = Field(
        Categorical(options=("none", "light", "medium", "strong")),
        description="of training pictures: a strength, or classics such as flip+crop+cutout",
    )
    balance: BalanceDomain | None = Field(
        None, description="none, weights, sampler or oversample; empty: searched if classes differ 1.5 times in size"
    )
    mix: MixDomain = Field(
        Categorical(options=("none",)), description="none, mixup or cutmix: two training pictures in one"
    )
    on_leak: Literal["drop", "keep"] = Field(
        "drop", description="training pictures that are also in a later split that you gave"
    )
    gate_metric: Metric = Field(
        "balanced_accuracy", description="what a candidate is compared with the champion by, on the test pictures"
    )
    min_gain: float = Field(0.005, ge=0, le=1, description="of that metric, the least that makes a new champion")
    significance: float = Field(
        0.05, gt=0, le=1, description="highest chance (paired test) that the gain is luck; 1: no proof asked"
    )
    max_class_loss: float = Field(
        0.1, ge=0, le=1, description="recall that a class may lose to a new champion; one picture of it always may"
    )

    @property
    def gate(self) -> Gate:
        """What the winner must keep to."""
        return Gate(
            metric=self.gate_metric,
            min_gain=self.min_gain,
            significance=self.significance,
            max_class_loss=self.max_class_loss,
        )

    tracking: Literal["server", "offline"] = Field(
        "server", description="offline: keep all that is for MLflow, a server need not be there; sync delivers it"
    )
    quiet: bool = QUIET
    events: EventsForm = EVENTS

    def to_params(self) -> dict[str, Any]:
        """Return all that was asked for of the training itself, as JSON has it: what is logged with it."""
        return self.model_dump(mode="json", exclude={"quiet", "events"})

    @model_validator(mode="after")
    def _check_batch_norm(self) -> TrainingSettings:
        normed = [head for head in self.head.options if "norm" in str(head)]
        if normed and 1 in self.batch_size.options:
            raise ValueError(
                f"batch_size must be 2 or more with a head of norm layers ({normed[0]}), got 1; leave out one of them"
            )
        return self

    @model_validator(mode="after")
    def _check_head_features(self) -> TrainingSettings:
        if "last" not in self.head_features.options and self.freeze_fraction.clip(1.0) != 1:
            raise ValueError(
                f"freeze_fraction must reach 1 with head_features=all, got {self.freeze_fraction}; "
                "give freeze_fraction=1, or head_features=last"
            )
        return self


# What a search gets where neither trials nor minutes are given: whichever is spent first.
DEFAULT_TRIALS = 16
DEFAULT_MINUTES = 5.0

# What a variant may set: the searched settings, and what belongs to a way of training.
VARIANT_FIELDS = (
    *(
        "backbone",
        "image_size",
        "truncate",
        "freeze_fraction",
        "head_features",
        "head",
        "optimizer",
        "lr",
        "weight_decay",
    ),
    *("lr_scheduler", "layer_decay", "label_smoothing", "batch_size", "dropout", "augmentation", "balance", "mix"),
    *("weights", "patience", "step_epochs", "cached_augmentations"),
)


class Variant(FrozenModel):
    """A named corner of a search: settings that take the place of the recipe's own."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}$")
    settings: Mapping[str, Any]


class Recipe(TrainingSettings):
    """One search, as it was asked for; ``tuning.recipe.loader`` reads it from a command line and a recipe's file."""

    recipe: str = Field(
        "auto",
        min_length=1,
        description="auto, quick, faces, emotions, efficient, cats-vs-dogs, celebrities, or a .yaml file of your own: "
        "options that these take the place of",
    )
    variants: tuple[Variant, ...] = Field((), json_schema_extra={"option": False}, description="only in a recipe file")
    trials: int | None = Field(
        None, ge=1, le=100_000, description="configurations tried, the sweep aside; empty: 16, or what minutes allows"
    )
    minutes: float | None = Field(
        None, gt=0, le=1e6, description="from the command to its end; empty: 5, or what trials takes"
    )
    sweep: bool = Field(True, description="begin with linear probes of all networks, sizes and cuts, where reuse is")
    max_concurrent: int = Field(0, ge=0, le=1024, description="trials at once; 0: as many as the cores carry")
    gpus_per_trial: float = Field(0.0, ge=0, le=64, description="accelerators of a trial; 0.5 puts two trials on one")
    rerun_top_k: int = Field(
        3, ge=0, le=100, description="best trials that are trained again before one wins by its mean; 0: none"
    )
    rerun_seeds: int = Field(2, ge=0, le=100, description="other seeds that each finalist is trained with")
    sampler: SamplerName = Field("tpe", description="what proposes settings: tpe learns from all trials")
    scheduler: Literal["asha", "median", "none"] = Field("asha", description="what stops hopeless trials early")
    max_latency_ms: float | None = Field(
        None, gt=0, le=1e6, description="the winner takes at most this for a picture, on one core; empty: any time"
    )
    max_mb: float | None = Field(
        None, gt=0, le=1e6, description="the winner's graph has at most this many million bytes; empty: any size"
    )

    @property
    def gate(self) -> Gate:
        """What the winner must keep to, its costs among it."""
        limits = {"max_latency_ms": self.max_latency_ms, "max_mb": self.max_mb}
        return super().gate.model_copy(update=limits)

    @field_validator("variants")
    @classmethod
    def _check_unique_names(cls, variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
        named = [variant.name for variant in variants]
        if len(set(named)) < len(named):
            raise ValueError("must have different names")
        return variants

    @model_validator(mode="after")
    def _check_variants(self) -> Recipe:
        for variant in self.variants:
            self.with_variant(variant)
        return self

    def with_variant(self, variant: Variant) -> Recipe:
        """Return the recipe of one variant alone.

        Raises:
            ValueError: the variant has a setting that isn't searched, or that is wrong.
        """
        unknown = set(variant.settings) - set(VARIANT_FIELDS)
        if unknown:
            raise ValueError(
                f"variant {variant.name} must have settings of {', '.join(VARIANT_FIELDS)}, "
                f"got {', '.join(sorted(unknown))}; leave it out"
            )
        return Recipe.model_validate({**self.model_dump(), "variants": (), **variant.settings})

    @property
    def max_trials(self) -> int | None:
        """How many configurations are tried at most, the sweep's probes aside; None: as many as ``minutes`` allows."""
        return DEFAULT_TRIALS if self.trials is None and self.minutes is None else self.trials

    @property
    def budget_s(self) -> float | None:
        """Seconds from the command to its end; None: as long as the trials take."""
        minutes = DEFAULT_MINUTES if self.trials is None and self.minutes is None else self.minutes
        return None if minutes is None else 60 * minutes
