"""Expert defaults of the search space: the default trial, linear probes and fine-tunes."""

from __future__ import annotations

import typing
from collections.abc import Mapping

from data.loading.class_balance import Balance
from tuning.common.trial_record import ParamValue
from tuning.recipe.domains import Categorical, FloatRange

# Learning rates that fine-tune: Adam's steps are of unit size whatever the gradient, SGD's are not.
ADAM_LR = FloatRange(low=1e-4, high=1e-2, log=True)
SGD_LR = FloatRange(low=1e-3, high=1e-1, log=True)

# Class balance is searched where the largest class has so many times the pictures of the smallest.
IMBALANCE_RATIO = 1.5
CLASS_BALANCES = Categorical(options=typing.get_args(Balance))

# What an expert tries first: decoupled weight decay, half of the network kept, a cosine to the end.
# The default trial runs it, so that a search can never end worse than it on the validation pictures.
DEFAULT_PARAMS: Mapping[str, ParamValue] = {
    "truncate": 0,
    "freeze_fraction": 0.5,
    "head_features": "last",
    "head": "linear",
    "optimizer": "adamw",
    "weight_decay": 1e-2,
    "lr_scheduler": "cosine",
    "layer_decay": 1.0,
    "label_smoothing": 0.0,
    "batch_size": 32,
    "dropout": 0.2,
    "augmentation": "light",
    "balance": "none",
    "mix": "none",
}
# Pictures that have to be blown up show the first blocks other edges than those that they learned from, so all of the
# network is trained, and further: with larger steps that rise and fall, as fastai fine-tunes. Wrong of the digits' 269
# test pictures (8 px, means of two seeds): 8 with half of the blocks frozen, 4 with none, 1.5 with these steps as well.
SMALL_IMAGE_DEFAULTS: Mapping[str, ParamValue] = {"freeze_fraction": 0.0, "lr_scheduler": "one_cycle"}
DEFAULT_LR: Mapping[str, float] = {"adamw": 1e-3, "adam": 1e-3, "sgd": 1e-2}
SMALL_IMAGE_LR: Mapping[str, float] = {"adamw": 2e-3, "adam": 2e-3, "sgd": 2e-2}
PROBE_LR: Mapping[str, float] = {"adamw": 3e-3, "adam": 3e-3, "sgd": 3e-2}  # a head alone bears, and needs, more
NETWORK_AXES = ("image_size", "backbone")  # the first of each is the default's; the sweep begins with the small sizes

# A probe of the sweep: everything frozen, and each picture seen as it is, so that its features are computed once. What
# is the same in all probes is not asked for: the sampler learns from them about networks, sizes and cuts, and not that
# good trials have a certain batch size.
# The probes of a network and size share their features, and workers side by side would wait for them, so those follow
# one another that differ in size and network. All levels stand before the last, which reads a part of their features.
# Larger pictures tell more than larger networks do: the sizes of one network stand before the next network. A head that
# sees all levels tells nothing about where the network is best cut for one that sees the last.
PROBE_AXES: Mapping[str, tuple[str, ...]] = {  # by its levels
    "all": ("backbone", "image_size"),
    "last": ("truncate", "backbone", "image_size"),
}
PROBE_PARAMS: Mapping[str, ParamValue] = {"freeze_fraction": 1.0, "augmentation": "none", "mix": "none"}
PROBE_BALANCES = ("weights", "none")  # what is scored is balanced accuracy, so the loss is balanced where it may be
FINE_TUNE_FRACTIONS = (0.5, 0.2)  # shares of the blocks that stay frozen where the best probe's network is fine-tuned
MOSTLY_TRAINED_FRACTIONS = (
    0.0,
    0.2,
)  # the same where fine-tuning leaves every probe behind: these pictures need other features
MAX_PROBED_TRUNCATIONS = 3  # cuts of each network that the sweep probes, counted from the end
