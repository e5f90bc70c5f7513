"""Probes on features computed in bfloat16 against float32: ``python -m benchmarks.precision FOLDER [FOLDER ...]``.

For each folder, network and kind of features, a logistic regression is cross-validated on all images with each
precision. Prints the out-of-fold log loss and balanced accuracy, and the paired difference of the loss per image with
its standard error. On a processor without bfloat16 the features take longer, but are the same.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np

from data.dataset.dataset import Dataset
from data.dataset.folds import development_folds
from data.load_dataset import load_dataset
from data.loading.batch_config import BatchConfig
from data.loading.pixel_cache import pixel_cache
from models.backbones.factory import preprocessing_for
from models.classifier import build_classifier
from models.evaluation.calibration import cross_entropy
from models.evaluation.metrics import Floats, balanced_accuracy, confusion_matrix
from models.features.trial_features import TrialFeatures
from models.heads.spec import HeadFeatures
from models.precision import ComputePrecision
from models.training.logistic_regression import Features, FeatureSpace, cross_validate
from models.training.probe import features_of
from models.training.trial_io import split_batches
from models.trial_config import FeaturesConfig, FitConfig, NetworkConfig, TrialConfig

BACKBONES = ("tf_efficientnet_lite0", "tf_efficientnet_lite2")
SIZE = 128
KINDS: tuple[HeadFeatures, ...] = ("last", "all")
PRECISIONS: tuple[ComputePrecision, ...] = ("fp32", "bf16")


def features(dataset: Dataset, backbone: str, kind: HeadFeatures, precision: ComputePrecision) -> Features:
    """Return the features [n, f] of all images, in the order of the data set's samples."""
    config = TrialConfig(
        seed=0,
        preprocessing=preprocessing_for(backbone, SIZE),
        batches=BatchConfig(augmentation="none", balance="weights"),
        network=NetworkConfig(backbone=backbone, freeze_fraction=1, head_features=kind),
        fit=FitConfig(optimizer="lbfgs", validation="folds"),
        features=FeaturesConfig(frozen_precision=precision),
    )
    num_classes = len(dataset.classes)
    classifier = build_classifier(config.network, num_classes, SIZE, config.seed)
    classifier.frozen_precision = precision
    pixels = pixel_cache(dataset, config.preprocessing)
    source = TrialFeatures(classifier, config, dataset, pixels, lambda: None)
    return features_of(classifier, split_batches(pixels, config, "train", num_classes, source.loader("train")))


def main() -> None:
    """Print a row for each data set, network and kind of features."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+")
    print(
        "data network features n loss_fp32 loss_bf16 difference standard_error accuracy_fp32 accuracy_bf16", flush=True
    )
    for folder in parser.parse_args().folders:
        loaded = load_dataset(folder)
        dataset = loaded.model_copy(
            update={"samples": tuple(sample.model_copy(update={"split": "train"}) for sample in loaded.samples)}
        )
        labels, folds = np.array([sample.label for sample in dataset.samples]), development_folds(dataset)
        assert folds is not None, folder  # noqa: S101
        for backbone, kind in itertools.product(BACKBONES, KINDS):
            losses: list[Floats] = []
            accuracies = []
            for precision in PRECISIONS:
                inputs = features(dataset, backbone, kind, precision)
                space = FeatureSpace(inputs, np.ones(len(inputs), dtype=np.bool_))
                chosen = cross_validate(space.coordinates, labels, folds, len(dataset.classes), is_balanced=True)
                losses.append(cross_entropy(chosen.logits, labels, 1.0))
                confusion = confusion_matrix(chosen.logits.argmax(axis=1), labels, len(dataset.classes))
                accuracies.append(float(balanced_accuracy(confusion)))
            differences = losses[1] - losses[0]
            error = differences.std(ddof=1) / len(labels) ** 0.5
            values = (*(loss.mean() for loss in losses), differences.mean(), error, *accuracies)
            texts = " ".join(f"{value:.4f}" for value in values)
            print(Path(folder).name, backbone, kind, len(labels), texts, flush=True)


if __name__ == "__main__":
    main()
