"""All that is needed to train one model again."""

from __future__ import annotations

from pydantic import NonNegativeInt

from data.batches import BatchConfig
from data.preprocess import Preprocessing
from data.values import Value
from models.classifier import NetworkConfig
from models.features import FeaturesConfig
from models.fit import FitConfig


class TrialConfig(Value):
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
    features: FeaturesConfig = FeaturesConfig(reuse="off", views=0)
