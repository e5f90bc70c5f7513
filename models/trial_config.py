"""A trial's configuration: everything that is needed to train one model again."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from data.frozen_model import FrozenModel, as_pydantic_validator
from data.loading.batch_config import BatchConfig
from data.preprocessing import Preprocessing
from models.backbones.weight_packages import DEFAULT_BACKBONE
from models.heads.spec import LINEAR, HeadFeatures, hidden_layers
from models.precision import ComputePrecision

# Settings without effect on a linear probe that is fitted by ``lbfgs``.
UNUSED_BY_PROBES = (
    "lr", "weight_decay", "lr_scheduler", "step_epochs", "max_epochs", "layer_decay", "label_smoothing", "patience",
    "batch_size", "dropout", "cached_augmentations", "trained_precision",
)  # fmt: skip


class NetworkConfig(FrozenModel):
    """Network architecture, weights, and the part that is trained.

    Attributes:
        backbone: a name that ``models.backbones.factory.resolve`` accepts.
        weights: auto, package, hub, none, or the path of a file.
        truncate: number of trailing blocks to drop; the last remaining block's activation is averaged for the head.
        freeze_fraction: fraction of the remaining blocks that is frozen: 0 trains everything, 1 the head alone.
        head_features: input of the head: ``last`` for the last remaining block, or ``all`` (everything frozen only) for
            the concatenated averages of every block. Early blocks often carry more information about images unlike the
            pretraining data (Evci et al., "Head2Toe: Utilizing Intermediate Representations for Better Transfer
            Learning", ICML 2022).
        head: ``linear``, or hidden layers in the syntax of ``models.heads.spec``.
        dropout: dropout probability in front of each linear layer of the head.
    """

    backbone: str = DEFAULT_BACKBONE
    weights: str = "auto"
    truncate: NonNegativeInt = 0
    freeze_fraction: float = Field(default=0.5, ge=0, le=1)
    head_features: HeadFeatures = "last"
    head: Annotated[str, AfterValidator(as_pydantic_validator(hidden_layers))] = LINEAR
    dropout: float = Field(default=0.2, ge=0, lt=1)

    @model_validator(mode="after")
    def _check_all_frozen(self) -> Self:
        if self.head_features == "all" and self.freeze_fraction < 1:
            raise ValueError(
                f"freeze_fraction must be 1 with head_features=all, got {self.freeze_fraction:g}; "
                "use freeze_fraction=1 or head_features=last"
            )
        return self


class FeaturesConfig(FrozenModel):
    """Caching of the frozen blocks' output.

    Attributes:
        feature_cache: precision of cached features: ``fp16``; ``fp32`` (bit-identical to training without a cache);
            ``off`` computes the frozen blocks in every epoch.
        cached_augmentations: number of augmented views of each training image if blocks are frozen; epochs cycle
            through them. With 0 every epoch augments each image differently, so features can't be cached.
        frozen_precision: what frozen blocks are computed in while training; the packaged network computes in fp32.
    """

    feature_cache: Literal["fp16", "fp32", "off"] = "fp16"
    cached_augmentations: NonNegativeInt = 4
    frozen_precision: ComputePrecision = "fp32"


class FitConfig(FrozenModel):
    """Training hyperparameters.

    Attributes:
        optimizer: SGD uses Nesterov momentum; Adam adds weight decay to the gradient, AdamW decouples it. ``lbfgs``
            fits the linear head of a frozen network to convergence (``models.training.probe``) and uses no other
            setting.
        lr: learning rate of the head after the warmup.
        layer_decay: factor between the learning rates of neighboring blocks, from the head toward the input
            (discriminative fine-tuning: Howard & Ruder, "ULMFiT", 2018); 1 trains all blocks at the same rate.
        weight_decay: not applied to norm layers and biases.
        lr_scheduler: ``cosine`` decays to 0 over all steps, ``step`` divides by ten every ``step_epochs``,
            ``one_cycle`` rises over the first 30 % of the steps and decays to 0, ``plateau`` decays when the validation
            loss stalls.
        step_epochs: epochs between two decays of ``step``; 0 means a third of the epochs.
        max_epochs: number of passes over the training images.
        patience: epochs without a lower validation loss before training stops; 0 disables early stopping.
        label_smoothing: probability mass of the training target that is spread over all classes.
        validation: images that choose the penalty of ``lbfgs``: the validation split, or folds over the training and
            validation images.
        refit: whether the final weights of ``lbfgs`` are fitted on the training and validation images; needs folds.
        trained_precision: what the other blocks and the head are computed in while training.
    """

    optimizer: Literal["sgd", "adam", "adamw", "lbfgs"] = "adamw"
    lr: PositiveFloat = 1e-3
    weight_decay: float = Field(default=1e-2, ge=0)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    lr_scheduler: Literal["constant", "step", "cosine", "one_cycle", "plateau"] = "cosine"
    step_epochs: NonNegativeInt = 0
    max_epochs: PositiveInt = 10
    patience: NonNegativeInt = 0
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    validation: Literal["folds", "split"] = "split"
    refit: bool = False
    trained_precision: ComputePrecision = "fp32"


class TrialConfig(FrozenModel):
    """One trial's configuration, composed of the lower layers' own configurations; each layer receives only its part.

    Attributes:
        seed: seed of new weights, image order, augmentation and dropout.
        fold: the fold of ``data.dataset.folds.development_folds`` that validates the trial, which is trained on all
            other training and validation images; None: the validation split.
        preprocessing: conversion of an image to the network's input.
        batches: batching, augmentation and class balance of training images.
        network: the network, and the part of it that is trained.
        fit: training hyperparameters.
        features: feature caching and augmented views. JSON that was written before this field existed is read with its
            default: no cache, and different augmentations in every epoch.
        images_per_epoch: approximate number of training images per epoch, or of a linear probe, drawn by class; each
            epoch uses another part of them (``data.dataset.stratified_parts``). None: all.
    """

    seed: NonNegativeInt
    preprocessing: Preprocessing
    batches: BatchConfig
    network: NetworkConfig
    fit: FitConfig
    features: FeaturesConfig = FeaturesConfig(feature_cache="off", cached_augmentations=0)
    fold: NonNegativeInt | None = None
    images_per_epoch: PositiveInt | None = None

    def __repr__(self) -> str:
        values = self.network.model_dump() | self.fit.model_dump() | self.batches.model_dump()
        names = ("backbone", "truncate", "freeze_fraction", "optimizer", "lr", "batch_size", "augmentation")
        settings = ", ".join(f"{name}={values[name]!r}" for name in names)
        return f"TrialConfig({settings}, image_size={self.preprocessing.image_size}, seed={self.seed})"

    @property
    def is_probe(self) -> bool:
        """Whether the head is fitted by logistic regression on the features of a frozen network."""
        return self.fit.optimizer == "lbfgs"

    def num_used(self, num_images: int) -> int:
        """Return how many of the training images the trial uses in all its epochs."""
        return min(num_images, (self.images_per_epoch or num_images) * self.fit.max_epochs)

    def settings(self) -> dict[str, dict[str, object]]:
        """Return the settings that have an effect, by part: ``preprocessing``, ``batches``, ``network`` and so on."""
        unused = UNUSED_BY_PROBES if self.is_probe else ()
        parts = {
            part: {name: value for name, value in values.items() if name not in unused}
            for part, values in self.model_dump(mode="json").items()
            if isinstance(values, dict)
        }
        if self.images_per_epoch is not None:
            parts["batches"]["images_per_epoch"] = self.images_per_epoch
        return parts

    @model_validator(mode="after")
    def _check_probe(self) -> Self:
        network, batches = self.network, self.batches
        is_fixed = network.freeze_fraction == 1 and batches.augmentation == "none" and batches.mix == "none"
        if self.is_probe and not (is_fixed and network.head == LINEAR and batches.balance in ("none", "weights")):
            raise ValueError(
                "optimizer=lbfgs needs freeze_fraction=1, head=linear, augmentation=none, mix=none and balance=none or "
                "weights; change them, or use adamw"
            )
        return self
