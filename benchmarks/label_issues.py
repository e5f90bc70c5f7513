"""Wrong labels: how many of them are found, and what dropping them gains.

Run ``python -m benchmarks.label_issues FOLDER [FOLDER ...] --rows FILE``. A tenth of the labels outside of the test
split is changed, to another class at random or to the class that a probe confuses most often with the right one.
Confident learning then ranks the images, as ``freezeline audit --labels`` does: precision and recall are those of the
first n findings, n being the number of changed labels. A linear probe is fitted on the images with all labels (keep),
without the findings (drop), and with the right labels (clean); the test labels are right. A row of FILE is a cell; rows
that exist are not measured again.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.jsonl import append_row, read_rows
from data.dataset.dataset import Dataset
from data.dataset.folds import folds_of
from data.load_dataset import load_dataset
from models.backbones.factory import preprocessing_for
from models.backbones.weight_packages import DEFAULT_BACKBONE
from models.evaluation.calibration import softmax
from models.evaluation.label_issues import find_label_issues
from models.evaluation.metrics import Labels, compute_metrics
from models.training.logistic_regression import FeatureSpace, cross_validate, fit
from models.training.out_of_fold import OutOfFold, out_of_fold

CHANGED_SHARE = 0.1
KINDS = ("random", "similar")
IMAGE_SIZE = 128


class Cell(NamedTuple):
    """A data set, how labels are changed, and the seed."""

    data: str
    kind: str
    seed: int


def changed_labels(labels: Labels, confused: Labels, kind: str, seed: int) -> tuple[Labels, np.ndarray]:
    """Return labels of which a tenth is changed, and whether each one is; ``confused`` [n] are the similar classes."""
    generator = np.random.default_rng(seed)
    rows = generator.permutation(len(labels))[: round(CHANGED_SHARE * len(labels))]
    num_classes = int(labels.max()) + 1
    others = (labels + generator.integers(1, num_classes, len(labels))) % num_classes
    changed = labels.copy()
    changed[rows] = others[rows] if kind == "random" else confused[rows]
    return changed, changed != labels


def most_confused(logits: np.ndarray, labels: Labels) -> Labels:
    """Return for each image [n] the class that its class is most often confused with, by mean probability."""
    probabilities = softmax(logits)
    means = np.stack([probabilities[labels == label].mean(axis=0) for label in range(logits.shape[1])])
    np.fill_diagonal(means, -1)
    return np.asarray(means.argmax(axis=1)[labels])


def measure(dataset: Dataset, computed: OutOfFold, kind: str, seed: int) -> dict[str, Any]:
    """Return precision and recall of the first n findings, and the test accuracies."""
    is_test = np.array([sample.split == "test" for sample in dataset.samples])
    features, right = computed.features[~is_test], computed.labels[~is_test]
    samples = [sample for sample in dataset.samples if sample.split != "test"]
    num_classes = len(dataset.classes)
    labels, is_changed = changed_labels(right, most_confused(computed.logits[~is_test], right), kind, seed)
    space = FeatureSpace(features, np.ones(len(labels), dtype=bool))
    folds = folds_of(
        [sample.model_copy(update={"label": int(label)}) for sample, label in zip(samples, labels, strict=True)]
    )
    assert folds is not None  # noqa: S101
    logits = cross_validate(space.coordinates, labels, folds, num_classes, is_balanced=True).logits
    found = [issue.row for issue in find_label_issues(logits, labels)]
    first = found[: int(is_changed.sum())]

    def accuracy(rows: np.ndarray, used: Labels) -> float:
        space = FeatureSpace(features[rows], np.ones(len(rows), dtype=bool))
        c = cross_validate(space.coordinates, used[rows], folds[rows], num_classes, is_balanced=True).c
        layer = space.to_linear_layer(*fit(space.coordinates, used[rows], c, num_classes, is_balanced=True))
        test = softmax(layer.logits(computed.features[is_test]))
        return round(compute_metrics(test, computed.labels[is_test], dataset.classes).accuracy, 4)

    every = np.arange(len(labels))
    return {
        "images": len(labels),
        "changed": int(is_changed.sum()),
        "found": len(found),
        "precision": round(float(is_changed[first].mean()), 3),
        "recall": round(float(is_changed[first].sum() / is_changed.sum()), 3),
        "recall_of_all": round(float(is_changed[found].sum() / is_changed.sum()), 3),
        "test_images": int(is_test.sum()),
        "keep": accuracy(every, labels),
        "drop": accuracy(np.setdiff1d(every, found), labels),
        "clean": accuracy(every, right),
    }


def main() -> None:
    """Measure the cells that FILE does not have, and print all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    done = {Cell(row["data"], row["kind"], row["seed"]) for row in read_rows(options.rows)}
    for folder in options.folders:
        cells = [Cell(folder.name, kind, seed) for kind, seed in itertools.product(KINDS, range(options.seeds))]
        if set(cells) <= done:
            continue
        dataset = load_dataset(str(folder))
        computed = out_of_fold(
            dataset, DEFAULT_BACKBONE, preprocessing_for(DEFAULT_BACKBONE, IMAGE_SIZE), lambda *_: None
        )
        for cell in cells:
            if cell not in done:
                append_row(options.rows, {**cell._asdict(), **measure(dataset, computed, cell.kind, cell.seed)})
    for row in read_rows(options.rows):
        print(row)


if __name__ == "__main__":
    main()
