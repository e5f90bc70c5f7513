"""The options of ``tune`` and ``train``: types, defaults and limits.

A searchable setting takes one value (``-P lr=1e-3``), a choice (``-P optimizer=adam,adamw``) or a range
(``-P lr=1e-4..1e-2``). The defaults below are the default search space.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from data.frozen_model import FrozenModel, as_pydantic_validator
from data.loading.augmentation import validate_augmentation
from data.loading.batch_config import Balance, Mix
from data.sources.options import DataOptions
from models.heads.spec import HeadFeatures, hidden_layers
from tuning.common.option_types import Gate, Metric, ParamValue
from tuning.recipe.domains import Categorical, Domain, FloatRange, parse_choices, parse_names, parse_numbers


def _each_option(check: Callable[[str], object]) -> AfterValidator:
    """Return a validator that applies ``check`` (it raises SettingError) to each option of a domain."""
    validate_option = as_pydantic_validator(check)

    def validate(domain: Domain) -> Domain:
        for option in domain.options:
            validate_option(str(option))
        return domain

    return AfterValidator(validate)


PROBE_OPTIMIZER = "lbfgs"  # fits a linear probe

NameDomain = Annotated[Domain, BeforeValidator(parse_names)]
OptimizerDomain = Annotated[Domain, BeforeValidator(parse_choices("adamw", "adam", "sgd", PROBE_OPTIMIZER))]
LRSchedulerDomain = Annotated[
    Domain, BeforeValidator(parse_choices("constant", "step", "cosine", "one_cycle", "plateau"))
]
HeadDomain = Annotated[Domain, BeforeValidator(parse_names), _each_option(hidden_layers)]
AugmentationDomain = Annotated[Domain, BeforeValidator(parse_names), _each_option(validate_augmentation)]
BalanceDomain = Annotated[Domain, BeforeValidator(parse_choices(*typing.get_args(Balance)))]
MixDomain = Annotated[Domain, BeforeValidator(parse_choices(*typing.get_args(Mix)))]
LearningRateDomain = Annotated[Domain, BeforeValidator(parse_numbers(1e-8, 10.0, log=True))]
WeightDecayDomain = Annotated[Domain, BeforeValidator(parse_numbers(0.0, 1.0, log=True))]
HeadFeaturesDomain = Annotated[Domain, BeforeValidator(parse_choices(*typing.get_args(HeadFeatures)))]
FractionDomain = Annotated[Domain, BeforeValidator(parse_numbers(0.0, 1.0))]
DropoutDomain = Annotated[Domain, BeforeValidator(parse_numbers(0.0, 0.9))]
BatchSizeDomain = Annotated[Domain, BeforeValidator(parse_numbers(1, 4096, integer=True))]
IntDomain = Annotated[Domain, BeforeValidator(parse_numbers(0, 100, integer=True))]
LayerDecayDomain = Annotated[Domain, BeforeValidator(parse_numbers(0.01, 1.0))]

SamplerName = Literal["tpe", "random"]  # implemented in tuning.search.samplers
SchedulerName = Literal["asha", "median", "none"]  # implemented in tuning.search.schedulers
Preference = Literal["accuracy", "balanced", "small"]  # implemented in tuning.search.choice
ProbeValidation = Literal["auto", "folds", "split"]
MAX_MEMBERS = 5  # of an ensemble
MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 16, 1024  # px; below 16 px, five stride-2 stages leave less than one pixel


# The value of ``auto`` depends on the data set or on the installed weights.
AUTO = BeforeValidator(lambda text: None if text == "auto" else text)
ImageSizeDomain = Annotated[Domain, BeforeValidator(parse_numbers(MIN_IMAGE_SIZE, MAX_IMAGE_SIZE, integer=True))]

EventsForm = Literal["text", "json"]

# Options of the output of ``tune``, ``resume`` and ``train``; they do not change any result.
QUIET: Any = Field(False, description="print only the result, warnings and errors")
EVENTS: Any = Field(
    "text", description="json: events as JSON Lines on standard output (docs/events.md), messages on standard error"
)


class TrainingSettings(DataOptions):
    """Settings of data and training, shared by ``tune`` (which searches) and ``train`` (which uses one value each)."""

    name: str = Field(
        "",
        pattern=r"^$|^[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}$",
        description="name of the experiment and the registered model; empty: the name of the data folder",
    )
    max_epochs: int = Field(8, ge=1, le=1000, description="maximum number of epochs per trial")
    images_per_epoch: Annotated[int | None, AUTO] = Field(
        None,
        ge=0,
        le=10**9,
        description="number of training images per epoch, drawn by class; each epoch uses others; 0: all; empty or "
        "'auto': all, or fewer if the time budget requires it",
    )
    cpus_per_trial: int = Field(1, ge=1, le=1024, description="CPU cores and PyTorch threads per trial")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="random seed of the search and of every trial")
    weights: str = Field(
        "auto", min_length=1, description="pretrained weights: auto, package, hub, none, or a .pth/.safetensors file"
    )
    patience: int = Field(
        0, ge=0, le=1000, description="end a trial after this many epochs without a lower validation loss; 0: off"
    )
    step_epochs: int = Field(
        0, ge=0, le=1000, description="epochs between decays for lr_scheduler=step (x0.1); 0: max_epochs/3"
    )
    feature_cache: Literal["fp16", "fp32", "off"] = Field(
        "fp16", description="precision of the cached features of frozen blocks, shared by all trials; off: no cache"
    )
    precision: Literal["auto", "fp32", "bf16", "bf16-frozen"] = Field(
        "auto",
        description="what networks are computed in while training; auto: bf16 on a GPU, bf16-frozen (the frozen blocks "
        "only) on a CPU with AVX512-BF16 or AMX, else fp32; the packaged model computes in fp32",
    )
    cached_augmentations: int = Field(
        4, ge=0, le=1000, description="augmented views per image in the feature cache; 0: new augmentations every epoch"
    )
    backbone: Annotated[NameDomain | None, AUTO] = Field(
        None,
        description="timm or torchvision classifier; empty or 'auto': those with packaged weights, and if the hub is "
        "reachable two small ones and, on a GPU, two larger ones",
    )
    image_size: Annotated[ImageSizeDomain | None, AUTO] = Field(
        None,
        description="side in pixels to which images are resized; empty or 'auto': based on the median image size, at "
        "most 224, on a GPU 384",
    )
    truncate: Annotated[IntDomain | None, AUTO] = Field(
        None,
        description="number of blocks dropped from the end of the network; empty or 'auto': 0, and 3 for deep networks",
    )
    freeze_fraction: FractionDomain = Field(
        FloatRange(low=0.0, high=1.0), description="fraction of the blocks that is frozen"
    )
    head_features: HeadFeaturesDomain = Field(
        Categorical(options=("last", "all")),
        description="input of the head if all blocks are frozen: features of the last block, or of all blocks",
    )
    head: HeadDomain = Field(
        Categorical(options=("linear",)),
        description="classification head: linear, or hidden layers SIZE[:relu|leaky_relu][:norm] joined by +",
    )
    optimizer: OptimizerDomain = Field(
        Categorical(options=("adamw", "adam", "sgd")),
        description="optimizer; lbfgs fits a linear probe and needs freeze_fraction=1, augmentation=none",
    )
    lr: LearningRateDomain | None = Field(
        None, description="learning rate; empty: 1e-4..1e-2 for Adam and AdamW, 1e-3..1e-1 for SGD"
    )
    weight_decay: WeightDecayDomain = Field(
        FloatRange(low=1e-5, high=1e-1, log=True), description="weight decay (not applied to norm layers and biases)"
    )
    lr_scheduler: LRSchedulerDomain = Field(
        Categorical(options=("cosine", "one_cycle", "constant", "step", "plateau")),
        description="learning-rate schedule",
    )
    layer_decay: LayerDecayDomain = Field(
        Categorical(options=(1.0,)),
        description="layer-wise learning-rate decay: factor per block toward the input",
    )
    label_smoothing: DropoutDomain = Field(
        Categorical(options=(0.0,)), description="label smoothing: share of the target spread over all classes"
    )
    batch_size: BatchSizeDomain = Field(Categorical(options=(16, 32, 64)), description="images per training step")
    dropout: DropoutDomain = Field(
        FloatRange(low=0.0, high=0.5), description="dropout rate before each linear layer of the head"
    )
    augmentation: AugmentationDomain = Field(
        Categorical(options=("none", "light", "medium", "strong")),
        description="augmentation of training images: a strength, or transforms such as flip+crop+cutout",
    )
    balance: BalanceDomain | None = Field(
        None,
        description="class balancing: none, weights, sampler or oversample; empty: searched if class sizes differ by "
        "more than a factor of 1.5",
    )
    mix: MixDomain = Field(
        Categorical(options=("none",)), description="mixing of two training images: none, mixup or cutmix"
    )
    validation: ProbeValidation = Field(
        "auto",
        description="how linear probes are validated: folds over the training and validation images, or the validation "
        "split alone; auto: folds, unless the data set provides a validation split",
    )
    refit: Literal["auto", "off"] = Field(
        "auto",
        description="auto: a linear probe that was validated with folds is refitted on the training and validation "
        "images; off: it keeps the weights fitted on the training images",
    )
    novelty: Literal["on", "off"] = Field(
        "on", description="package how far an image lies from the training images, for predict --reject and monitor"
    )
    on_label_issue: Literal["keep", "drop"] = Field(
        "keep",
        description="training and validation images whose label is probably wrong (freezeline audit FOLDER --labels "
        "lists them)",
    )
    on_leak: Literal["drop", "keep"] = Field(
        "drop", description="what to do with training images that also occur in a provided val/test split"
    )
    gate_metric: Metric = Field(
        "balanced_accuracy", description="metric on the test images by which the candidate must beat the champion"
    )
    min_gain: float = Field(0.005, ge=0, le=1, description="minimum gain in gate_metric over the champion")
    significance: float = Field(
        0.05, gt=0, le=1, description="maximum p-value of the paired test of candidate and champion; 1: no test"
    )
    max_class_loss: float = Field(
        0.1, ge=0, le=1, description="largest allowed recall drop per class (a single image is always allowed)"
    )

    @property
    def gate(self) -> Gate:
        """The conditions of the promotion gate."""
        return Gate(
            metric=self.gate_metric,
            min_gain=self.min_gain,
            significance=self.significance,
            max_class_loss=self.max_class_loss,
        )

    tracking: Literal["server", "offline"] = Field(
        "server", description="offline: no MLflow server needed; data is queued on disk until sync delivers it"
    )
    quiet: bool = QUIET
    events: EventsForm = EVENTS

    def to_params(self) -> dict[str, Any]:
        """Return all settings as JSON values, without options of the output and what ``start_from`` implies."""
        return self.model_dump(mode="json", exclude={"quiet", "events", "dry_run", "start_settings"})

    def given_params(self) -> dict[str, Any]:
        """Return the settings that the user or a recipe file gave, or that have been resolved; these are logged."""
        return {name: value for name, value in self.to_params().items() if name in self.model_fields_set}

    @model_validator(mode="after")
    def _check_batch_norm(self) -> TrainingSettings:
        with_norm = [head for head in self.head.options if "norm" in str(head)]
        if with_norm and 1 in self.batch_size.options:
            raise ValueError(
                f"batch_size must be 2 or more with a head of norm layers ({with_norm[0]}), got 1; change one of them"
            )
        return self

    @model_validator(mode="after")
    def _check_probe(self) -> TrainingSettings:
        required = {"optimizer": PROBE_OPTIMIZER, **PROBE_SETTINGS}
        is_fixed = all(getattr(self, name).options == (value,) for name, value in required.items())
        if PROBE_OPTIMIZER in self.optimizer.options and not is_fixed:
            settings = ", ".join(f"{name}={value}" for name, value in PROBE_SETTINGS.items())
            raise ValueError(
                f"optimizer={PROBE_OPTIMIZER} must be the only optimizer and needs {settings}, got {self.optimizer}; "
                "set them, or use adamw"
            )
        return self

    @model_validator(mode="after")
    def _check_head_features(self) -> TrainingSettings:
        if "last" not in self.head_features.options and self.freeze_fraction.clip(1.0) != 1:
            raise ValueError(
                f"freeze_fraction must reach 1 with head_features=all, got {self.freeze_fraction}; "
                "use freeze_fraction=1 or head_features=last"
            )
        return self


# What a linear probe needs besides its optimizer.
PROBE_SETTINGS = {"freeze_fraction": 1, "head": "linear", "augmentation": "none", "mix": "none"}

# The budget if neither trials nor minutes is given; the search ends at the first limit reached.
DEFAULT_TRIALS = 16
DEFAULT_MINUTES = 5.0

# The settings that a variant may have.
VARIANT_FIELDS = (
    "backbone",
    "image_size",
    "truncate",
    "freeze_fraction",
    "head_features",
    "head",
    "optimizer",
    "lr",
    "weight_decay",
    "lr_scheduler",
    "layer_decay",
    "label_smoothing",
    "batch_size",
    "dropout",
    "augmentation",
    "balance",
    "mix",
    "weights",
    "patience",
    "step_epochs",
    "cached_augmentations",
)


class Variant(FrozenModel):
    """A named part of the search space: settings that override those of the recipe."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}$")
    settings: Mapping[str, Any]


class Recipe(TrainingSettings):
    """The options of ``tune``; ``tuning.recipe.loader`` reads them from the command line and a recipe file."""

    recipe: str = Field(
        "auto",
        min_length=1,
        description="preset (auto, quick, faces, emotions, efficient, cats-vs-dogs, celebrities) or path of a .yaml "
        "file; other options override its values",
    )
    variants: tuple[Variant, ...] = Field((), json_schema_extra={"option": False}, description="only in a recipe file")
    start_from: str = Field(
        "",
        description="registered version whose configuration is the first trial, and whose name the search takes unless "
        "it has one: NAME@champion, NAME@3 or NAME",
    )
    start_settings: tuple[Mapping[str, ParamValue], ...] = Field(
        (), json_schema_extra={"option": False}, description="of each network of start_from, by option name"
    )
    trials: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="number of trials, not counting linear probes (default 16, or unlimited if minutes is set)",
    )
    minutes: float | None = Field(
        None, gt=0, le=1e6, description="time limit of the command (default 5, or unlimited if trials is set)"
    )
    sweep: bool = Field(
        True, description="start with linear probes of all networks, image sizes and truncations (needs feature_cache)"
    )
    max_concurrent: int = Field(
        0, ge=0, le=1024, description="maximum number of concurrent trials; 0: as cores and memory allow"
    )
    gpus_per_trial: Annotated[float | None, AUTO] = Field(
        None,
        ge=0,
        le=64,
        description="GPUs per trial (0.5: two trials share one); 0: CPU only; empty or 'auto': where Ray has a GPU, "
        "the share that a training step needs",
    )
    rerun_top_k: int = Field(
        3,
        ge=0,
        le=100,
        description="number of best trials to re-run with other seeds before the winner is chosen; 0: none",
    )
    rerun_seeds: int = Field(2, ge=0, le=100, description="number of additional seeds per re-run trial")
    dry_run: bool = Field(
        False, description="validate everything, print the plan and the resolved recipe, and start nothing"
    )
    prefer: Preference = Field(
        "balanced",
        description="what wins a tie: the lowest validation loss (accuracy), or a model that costs at most two thirds "
        "as much and is worse by at most half a standard error (balanced) or one (small)",
    )
    ensemble: int = Field(
        3,
        ge=1,
        le=MAX_MEMBERS,
        description="maximum number of networks whose probabilities are averaged in one model; 1: no ensembles",
    )
    sampler: SamplerName = Field("tpe", description="search algorithm (tpe learns from previous trials)")
    scheduler: SchedulerName = Field("asha", description="early stopping of weak trials")
    max_latency_ms: float | None = Field(
        None, gt=0, le=1e6, description="maximum latency of the winner per image on one core; empty: no limit"
    )
    max_mb: float | None = Field(
        None, gt=0, le=1e6, description="maximum size of the winner's graph in MB; empty: no limit"
    )

    @property
    def gate(self) -> Gate:
        """The conditions of the promotion gate, including the limits on latency and size."""
        limits = {"max_latency_ms": self.max_latency_ms, "max_mb": self.max_mb}
        return super().gate.model_copy(update=limits)

    @field_validator("variants")
    @classmethod
    def _check_unique_names(cls, variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
        names = [variant.name for variant in variants]
        if len(set(names)) < len(names):
            raise ValueError("must have different names")
        return variants

    @model_validator(mode="after")
    def _check_variants(self) -> Recipe:
        for variant in self.variants:
            self.with_variant(variant)
        return self

    def with_variant(self, variant: Variant) -> Recipe:
        """Return the recipe of a single variant.

        Raises:
            ValueError: the variant has an unknown or invalid setting.
        """
        unknown = set(variant.settings) - set(VARIANT_FIELDS)
        if unknown:
            raise ValueError(
                f"the settings of variant {variant.name} must be among {', '.join(VARIANT_FIELDS)}, "
                f"got {', '.join(sorted(unknown))}; remove it"
            )
        return Recipe.model_validate({**self.model_dump(), "variants": (), **variant.settings})

    @property
    def uses_gpu(self) -> bool:
        """Whether trials run on a GPU; the share may still be open once ``auto`` is resolved (``resolve_auto``)."""
        return self.gpus_per_trial != 0

    @property
    def max_trials(self) -> int | None:
        """The maximum number of trials, not counting linear probes; None: limited by ``minutes`` only."""
        return DEFAULT_TRIALS if self.trials is None and self.minutes is None else self.trials

    @property
    def budget_s(self) -> float | None:
        """The time limit of the command in seconds; None: no limit."""
        minutes = DEFAULT_MINUTES if self.trials is None and self.minutes is None else self.minutes
        return None if minutes is None else 60 * minutes


class ResumeRequest(FrozenModel):
    """The options of ``resume``."""

    run: str = Field(min_length=1, description="ID of the search's parent run")
    trials: int | None = Field(
        None, ge=1, le=100_000, description="number of additional trials; empty: the rest of the original budget"
    )
    minutes: float | None = Field(
        None, gt=0, le=1e6, description="time limit of this command; empty: the rest of the original budget"
    )
    quiet: bool = QUIET
    events: EventsForm = EVENTS
