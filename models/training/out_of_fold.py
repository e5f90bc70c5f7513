"""Predictions for every image of a data set by linear probes that did not see it.

Shapes: n images, k classes, f features.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from data.dataset.dataset import Dataset
from data.dataset.folds import Folds, folds_of
from data.dataset.stratified_parts import stratified_parts
from data.loading.pixel_cache import pixel_cache
from data.parallel import ProgressCallback
from data.preprocessing import Preprocessing
from data.sources.base import SPLITS
from models.classifier import build_classifier
from models.evaluation.metrics import Floats, Labels
from models.training.logistic_regression import Features, FeatureSpace, cross_validate
from models.training.probe import features_of
from models.training.trial_io import split_batches
from models.trial_config import TrialConfig

MAX_IMAGES = 10_000  # of one cross-validation; more are divided, so that memory and time stay in proportion


class OutOfFold(NamedTuple):
    """The images in the order of ``dataset.samples``: features [n, f], labels [n] and out-of-fold logits [n, k].

    Images that are never held out have NaN.
    """

    features: Features
    labels: Labels
    logits: Floats


def out_of_fold(dataset: Dataset, backbone: str, preprocessing: Preprocessing, progress: ProgressCallback) -> OutOfFold:
    """Compute the features of a pretrained network for all images of all splits, and cross-validate probes on them."""
    fields = {
        "seed": 0,
        "preprocessing": preprocessing,
        "batches": {"augmentation": "none"},
        "network": {"backbone": backbone, "freeze_fraction": 1.0},
        "fit": {"optimizer": "lbfgs", "max_epochs": 1},
    }
    config = TrialConfig.model_validate(fields)
    num_classes, size = len(dataset.classes), preprocessing.image_size
    classifier = build_classifier(config.network, num_classes, size, config.seed)
    cache = pixel_cache(dataset, preprocessing, progress)
    loaders = [split_batches(cache, config, split, num_classes) for split in SPLITS if dataset.split(split)]
    features = features_of(classifier, *loaders)
    labels = np.concatenate([loader.labels for loader in loaders])
    logits = np.full((len(labels), num_classes), np.nan)
    parts = stratified_parts(labels, MAX_IMAGES)
    for rows in [np.arange(len(labels))] if parts is None else map(parts.rows, range(parts.count)):
        folds = folds_of([dataset.samples[row] for row in rows])
        if folds is not None:
            logits[rows] = _cross_validated(features[rows], labels[rows], folds, num_classes)
    return OutOfFold(features, labels, logits)


def _cross_validated(features: Features, labels: Labels, folds: Folds, num_classes: int) -> Floats:
    space = FeatureSpace(features, np.ones(len(labels), dtype=bool))
    return cross_validate(space.coordinates, labels, folds, num_classes, is_balanced=True).logits
