"""A trial's configuration: everything that is needed to train one model again."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from data.frozen_model import FrozenModel, as_pydantic_validator
from data.loading.batch_config import BatchConfig
from data.preprocessing import Preprocessing
from models.backbones.weight_packages import DEFAULT_BACKBONE
from models.heads.spec import LINEAR, HeadFeatures, validate_head


class NetworkConfig(FrozenModel):
    """Which network is trained, and how much of it.

    Attributes:
        backbone: a name that ``models.backbones.factory.resolve`` knows.
        weights: auto, package, hub, none, or a file's path.
        truncate: how many trailing blocks are dropped; what the last one left gives is averaged for the head.
        freeze_fraction: share of the blocks left that stay frozen: 0 trains everything, 1 the head alone.
        levels: what the head sees: of the last block left, or, where all are frozen, the averages of every block side
            by side. What early blocks see often tells more about pictures unlike those that the network learned from
            (Evci et al., "Head2Toe: Utilizing Intermediate Representations for Better Transfer Learning", ICML 2022).
        head: ``linear``, or hidden layers as ``models.heads.spec`` reads them.
        dropout: share of the features that the head leaves out in training, before each of its linear layers.
    """

    backbone: str = DEFAULT_BACKBONE
    weights: str = "auto"
    truncate: NonNegativeInt = 0
    freeze_fraction: float = Field(default=0.5, ge=0, le=1)
    head_features: HeadFeatures = "last"
    head: Annotated[str, AfterValidator(as_pydantic_validator(validate_head))] = LINEAR
    dropout: float = Field(default=0.2, ge=0, lt=1)

    @model_validator(mode="after")
    def _levels_are_frozen(self) -> Self:
        if self.head_features == "all" and self.freeze_fraction < 1:
            raise ValueError(f"freeze_fraction must be 1 where the head sees all levels, got {self.freeze_fraction:g}")
        return self


class FeaturesConfig(FrozenModel):
    """What is done with what the frozen blocks compute.

    Attributes:
        reuse: ``on`` keeps it in half precision, ``exact`` in float32, the very bits that running the blocks gives;
            ``off`` runs them in every epoch.
        views: augmented variants that there are of each training picture, if blocks are frozen; epochs take turns with
            them. 0: augmented anew in every epoch, so nothing can be kept.
    """

    feature_cache: Literal["fp16", "fp32", "off"] = "fp16"
    cached_augmentations: NonNegativeInt = 4


class FitConfig(FrozenModel):
    """How a classifier is trained.

    Attributes:
        optimizer: SGD has Nesterov momentum; Adam's weight decay is part of the gradient, AdamW's isn't.
        lr: learning rate after the warmup, of the head.
        lr_decay: each trained block has the learning rate of the one behind it, the last one the head's, times this
            (discriminative fine-tuning: Howard & Ruder, "ULMFiT", 2018); 1 trains all of them alike.
        weight_decay: on weights only, not on norm layers and biases.
        lr_scheduler: ``cosine`` falls to 0 over all steps, ``step`` to a tenth every ``step_epochs``, ``one_cycle``
            rises over the first 30 % of the steps and falls to 0, ``plateau`` falls when the validation loss doesn't.
        step_epochs: epochs between two steps of ``step``; 0 makes them at each third of the epochs.
        max_epochs: times that training sees every picture.
        patience: epochs without a lower validation loss after which training stops; 0 never stops.
        label_smoothing: share of the probability that the training target spreads over all classes.
    """

    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    lr: PositiveFloat = 1e-3
    weight_decay: float = Field(default=1e-2, ge=0)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    lr_scheduler: Literal["constant", "step", "cosine", "one_cycle", "plateau"] = "cosine"
    step_epochs: NonNegativeInt = 0
    max_epochs: PositiveInt = 10
    patience: NonNegativeInt = 0
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)


class TrialConfig(FrozenModel):
    """One trial's configuration, made of the values that the lower layers own; each is handed only its part.

    Attributes:
        seed: decides new weights, order of the pictures, augmentation and dropout.
        preprocessing: from a picture to what the network sees.
        batches: from pictures to training batches.
        network: which network, and how much of it is trained.
        fit: how it is trained.
        features: whether what the frozen blocks compute is kept, and how pictures vary; JSON without it is of a time
            when nothing was kept, and pictures were augmented anew in every epoch.
    """

    seed: NonNegativeInt
    preprocessing: Preprocessing
    batches: BatchConfig
    network: NetworkConfig
    fit: FitConfig
    features: FeaturesConfig = FeaturesConfig(feature_cache="off", cached_augmentations=0)
