"""Expert defaults of the search space: the default trial, linear probes and fine-tunes."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping

from data.loading.batch_config import Balance
from models.heads.spec import LINEAR
from tuning.common.option_types import ParamValue
from tuning.recipe.domains import Categorical, FloatRange
from tuning.recipe.schema import PROBE_OPTIMIZER

# Learning rates for fine-tuning. Adam's steps have unit size regardless of the gradient, SGD's do not.
ADAM_LR = FloatRange(low=1e-4, high=1e-2, log=True)
SGD_LR = FloatRange(low=1e-3, high=1e-1, log=True)

# Class balance is searched if the largest class has more than this multiple of the smallest class's images.
IMBALANCE_RATIO = 1.5
CLASS_BALANCES = Categorical(options=typing.get_args(Balance))

# Expert defaults: decoupled weight decay, half of the blocks frozen, cosine schedule over all epochs. The default trial
# uses them, so a search never ends worse than them on the validation split.
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
# Upscaled images have edge statistics unlike the pretraining data, so the whole network is trained, with a larger
# learning rate that rises and falls, as in fastai. Errors on the 269 test images of the digits (8 px, mean of two
# seeds): 8 with half of the blocks frozen, 4 with none, 1.5 with these learning rates as well.
SMALL_IMAGE_DEFAULTS: Mapping[str, ParamValue] = {"freeze_fraction": 0.0, "lr_scheduler": "one_cycle"}
DEFAULT_LR: Mapping[str, float] = {"adamw": 1e-3, "adam": 1e-3, "sgd": 1e-2}
SMALL_IMAGE_LR: Mapping[str, float] = {"adamw": 2e-3, "adam": 2e-3, "sgd": 2e-2}
# A linear probe is fitted by logistic regression; its penalty is chosen by cross-validation (models.training.probe).
REGRESSION_PARAMS: Mapping[str, ParamValue] = {"optimizer": PROBE_OPTIMIZER, "head": LINEAR}
MAX_REGRESSION_IMAGES = 20_000
MAX_REGRESSION_SHARE = 0.05  # of the time budget, for the fits of one probe
MAX_REGRESSION_S = 60.0  # for the fits of one probe without a time budget
REGRESSION_S = 2.5e-6  # per image and feature on one core, of a probe's fits; measured with 1,070 images, 6 classes
REGRESSION_FEATURES = 2_000  # of a typical network; with fewer images, only as many dimensions as images count
REGRESSION_CLASSES = 8  # up to this number the fits are limited by memory, above they take longer
# With many images, probes are fitted on few of them first, and the best third of each number on the next one
# (successive halving over images: Jamieson & Talwalkar, "Non-stochastic Best Arm Identification ...", 2016). More than
# the last would need gigabytes of memory for features, and improve a linear head little.
PROBE_IMAGES = (2_000, 8_000, 16_000, 32_000)
PROMOTED_SHARE = 1 / 3
MIN_PROBE_STEP = 1.25  # smallest ratio of the last two numbers
PROBE_IMAGES_SETTING = "probe_images"  # the name of a probe's number of training images
FITS_WITH_FOLDS = 6  # five folds, and the fit on all images
# Validation images that score the trials: the standard error of an accuracy is at most 1.1 points with 2,000, 0.7 with
# 5,000. Each trial reads all of them in every epoch, so a short search uses few.
MIN_VAL_IMAGES, MAX_VAL_IMAGES = 2_000, 5_000
VAL_IMAGES_PER_MINUTE = 200  # of the time budget
# Training images of a search with a time budget: a core cannot train on more, so others would be decoded but not used.
MIN_TRAIN_IMAGES = 8_000
TRAIN_IMAGES_PER_MINUTE = 2_000  # of the time budget and core
MAX_DEFAULT_SHARE = 0.4  # of the time budget for the default trial, which determines the images of an epoch
MIN_EPOCH_IMAGES = 2_000
GFLOPS_PER_S = {"cpu": 15.0, "cuda": 3_000.0}  # in training; of a core: EfficientNet-Lite0, 48 to 128 px; GPU: a guess
# With many classes, a probe is trained by gradient steps. A linear head tolerates, and needs, a higher learning rate.
PROBE_LR: Mapping[str, float] = {"adamw": 3e-3, "adam": 3e-3, "sgd": 3e-2}
# The default uses the first option of each; the linear probes start with the small image sizes.
NETWORK_AXES = ("image_size", "backbone")

# Linear probes freeze the whole network and do not augment, so that features are computed once. Settings that are the
# same in all probes are not suggested to the sampler: it learns about backbones, sizes and truncations from the probes,
# and not that good trials have a certain batch size.
# Concurrent probes with the same backbone and size would wait for each other's features, so consecutive probes differ
# in one of them. Probes with the features of all blocks come before those with the last, which read a subset of their
# features. Larger images improve scores more than larger backbones do, so all sizes of a backbone come before the next.
# The best truncation may differ between head_features=all and last, so only the probes with last vary it.
PROBE_AXES: Mapping[str, tuple[str, ...]] = {  # by head_features; the last axis varies fastest
    "all": ("backbone", "image_size"),
    "last": ("truncate", "backbone", "image_size"),
}
PROBE_PARAMS: Mapping[str, ParamValue] = {"freeze_fraction": 1.0, "augmentation": "none", "mix": "none"}
PROBE_BALANCES = ("weights", "none")  # the first allowed one; the objective is balanced accuracy
# Trials of the sampler that share the time left equally. They precede the second fine-tune of the best probe, and the
# first one if it takes long.
MIN_SAMPLED = 12
FINE_TUNE_FRACTIONS = (0.5, 0.2)  # freeze fractions of the fine-tunes of the best probe
# The same if fine-tuning is significantly better than all probes: these images need other features.
MOSTLY_TRAINED_FRACTIONS = (0.0, 0.2)
MAX_PROBED_TRUNCATIONS = 3  # smallest truncations of each backbone that are probed


def allows_folds(num_images: int, num_classes: int, budget_s: float | None) -> bool:
    """Return whether the cross-validation of a probe takes a small part of the time budget (None: no limit)."""
    seconds = _regression_s(num_images, num_classes)
    return num_images <= MAX_REGRESSION_IMAGES and seconds <= _max_regression_s(budget_s)


def probe_sizes(num_images: int) -> tuple[int, ...]:
    """Return the numbers of training images on which probes are fitted, by logistic regression without folds."""
    sizes = [size for size in PROBE_IMAGES if size < num_images]
    if num_images > PROBE_IMAGES[-1]:
        return tuple(sizes)
    if sizes and num_images < MIN_PROBE_STEP * sizes[-1]:
        sizes.pop()
    return (*sizes, num_images)


def allows_fit(num_images: int, num_classes: int, budget_s: float | None) -> bool:
    """Return whether the fit of a probe without folds takes a small part of the time budget (None: no limit)."""
    return _regression_s(num_images, num_classes) <= FITS_WITH_FOLDS * _max_regression_s(budget_s)


def _regression_s(num_images: int, num_classes: int) -> float:
    dimensions = min(num_images, REGRESSION_FEATURES)
    return REGRESSION_S * num_images * dimensions * max(1, num_classes / REGRESSION_CLASSES)


def _max_regression_s(budget_s: float | None) -> float:
    return MAX_REGRESSION_S if budget_s is None else min(MAX_REGRESSION_S, MAX_REGRESSION_SHARE * budget_s)


def max_val_images(budget_s: float | None) -> int:
    """Return the largest number of validation images that score the trials of a search (None: no time limit)."""
    count = math.inf if budget_s is None else VAL_IMAGES_PER_MINUTE * budget_s / 60
    return int(min(MAX_VAL_IMAGES, max(MIN_VAL_IMAGES, count)))


def max_train_images(budget_s: float, cores: int) -> int:
    """Return the largest number of images from which the trials of a search on a CPU take their training images."""
    return max(MIN_TRAIN_IMAGES, int(TRAIN_IMAGES_PER_MINUTE * cores * budget_s / 60))


def auto_images_per_epoch(num_images: int, gflops: float, max_epochs: int, budget_s: float, device: str) -> int:
    """Return the number of images per epoch that lets the default trial end in its share of the time; 0 for all.

    ``gflops`` is what its network computes in training for one image; ``device`` is cpu or cuda.
    """
    count = MAX_DEFAULT_SHARE * budget_s * GFLOPS_PER_S[device] / (gflops * max_epochs)
    return 0 if max(MIN_EPOCH_IMAGES, count) >= num_images else max(MIN_EPOCH_IMAGES, int(count))
