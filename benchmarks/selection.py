"""Which rule chooses best among linear probes on few images: standard errors for cheaper models and for ensembles.

Run ``python -m benchmarks.selection FOLDER [FOLDER ...] --rows FILE``. Of each folder, stratified subsets of 100 and
300 images are used for cross-validation, all others (at least 250) as test. For each subset, the linear probes of two
networks at two image sizes are fitted as in a search, and each rule chooses. A row of ``FILE`` is one subset; rows
that exist are not measured again. The last lines show, for each data set, the rule that is best on all others.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.jsonl import append_row, read_rows
from benchmarks.subsets import subset
from data.dataset.dataset import Dataset
from data.dataset.folds import development_folds
from data.load_dataset import load_dataset
from data.loading.batch_config import BatchConfig
from data.loading.pixel_cache import pixel_cache
from data.sources.base import SPLITS
from models.backbones.factory import preprocessing_for
from models.classifier import build_classifier
from models.evaluation.calibration import softmax
from models.evaluation.ensemble import combine_logits
from models.evaluation.metrics import Floats, Labels, compute_metrics
from models.features.trial_features import TrialFeatures
from models.heads.spec import HeadFeatures
from models.profiling.serving_cost import ServingCost, ServingSpec, serving_cost
from models.training.logistic_regression import Features, FeatureSpace, cross_validate, fit
from models.training.predictions import HeldOutLogits
from models.training.probe import features_of
from models.training.trial_io import split_batches
from models.trial_config import FeaturesConfig, FitConfig, NetworkConfig, TrialConfig
from tuning.common.trial_record import TrialRecord
from tuning.search.choice import ChoiceRules, choose
from tuning.search.evidence import Evidence, Images

BACKBONES = ("tf_efficientnet_lite0", "tf_efficientnet_lite1")
SIZES = (128, 224)
NUM_IMAGES, MIN_TEST_IMAGES = (100, 300), 250
ERRORS = (0.0, 0.5, 1.0)
MAX_MEMBERS = 3


class Rule(NamedTuple):
    """Standard errors by which a cheaper model may be worse, and by which an ensemble must be better (None: none)."""

    tolerance: float
    margin: float | None

    @property
    def label(self) -> str:
        """The name in the tables."""
        return f"cheaper {self.tolerance:g}, " + ("no ensemble" if self.margin is None else f"ensemble {self.margin:g}")


RULES = [Rule(*values) for values in itertools.product(ERRORS, (*ERRORS, None))]


class Probe(NamedTuple):
    """A probe's features of all images of a data set, its trial and its serving cost."""

    trial: TrialRecord
    features: Features
    cost: ServingCost


def probes_of(dataset: Dataset) -> Iterator[Probe]:
    """Yield the probes of each network, image size and kind of features; their features are cached on disk."""
    kinds: tuple[HeadFeatures, ...] = ("all", "last")
    for number, (backbone, size, kind) in enumerate(itertools.product(BACKBONES, SIZES, kinds)):
        network = NetworkConfig(backbone=backbone, freeze_fraction=1, head_features=kind)
        config = TrialConfig(
            seed=0,
            preprocessing=preprocessing_for(backbone, size),
            batches=BatchConfig(augmentation="none", balance="weights"),
            network=network,
            fit=FitConfig(optimizer="lbfgs", validation="folds", refit=True),
            features=FeaturesConfig(),
        )
        spec = ServingSpec.from_network(network, size, len(dataset.classes))
        yield Probe(_trial(number, config), _features(dataset, config), serving_cost(spec))


def _trial(number: int, config: TrialConfig) -> TrialRecord:
    return TrialRecord(
        trial_uid=str(number),
        number=number,
        origin="probe",
        status="complete",
        reason="",
        config=config,
        settings={},
        runtime_info={},
    )


def _features(dataset: Dataset, config: TrialConfig) -> Features:
    """Return the features [n, f] of all images, in the order of the data set's samples."""
    num_classes = len(dataset.classes)
    classifier = build_classifier(config.network, num_classes, config.preprocessing.image_size, config.seed)
    pixels = pixel_cache(dataset, config.preprocessing)
    source = TrialFeatures(classifier, config, dataset, pixels, lambda: None)
    batches = [split_batches(pixels, config, split, num_classes, source.loader(split)) for split in SPLITS]
    return features_of(classifier, *batches)


def measure(dataset: Dataset, probes: Sequence[Probe], count: int, seed: int) -> dict[str, Any]:
    """Return the row of one subset: for each rule its expected and its test score, its loss and its latency."""
    labels = np.array([sample.label for sample in dataset.samples])
    rows, test = subset(labels, count, seed)
    samples = tuple(dataset.samples[row].model_copy(update={"split": "train"}) for row in rows)
    development = dataset.model_copy(update={"samples": samples})
    folds, num_classes = development_folds(development), len(dataset.classes)
    assert folds is not None, dataset.name  # noqa: S101
    known, test_logits = {}, {}
    for probe in probes:
        space = FeatureSpace(probe.features[rows], np.ones(len(rows), dtype=np.bool_))
        chosen = cross_validate(space.coordinates, labels[rows], folds, num_classes, is_balanced=True)
        layer = space.to_linear_layer(*fit(space.coordinates, labels[rows], chosen.c, num_classes, is_balanced=True))
        known[probe.trial.trial_uid] = HeldOutLogits(chosen.logits[:0], chosen.logits)
        test_logits[probe.trial.trial_uid] = layer.logits(probe.features[test])
    evidence = Evidence(development, known)
    results = {rule.label: _result(rule, probes, evidence, test_logits, labels[test]) for rule in RULES}
    return {"data": dataset.name, "images": count, "seed": seed, "test_images": len(test), "rules": results}


def _result(
    rule: Rule, probes: Sequence[Probe], evidence: Evidence, test_logits: Mapping[str, Floats], labels: Labels
) -> dict[str, float]:
    costs = {probe.trial.trial_uid: probe.cost for probe in probes}
    max_members = 1 if rule.margin is None else MAX_MEMBERS
    rules = ChoiceRules(rule.tolerance, rule.margin or 0.0, max_members, lambda _: True)
    trials = [probe.trial for probe in probes]
    choice = choose(trials, {}, evidence, lambda trial: costs[trial.trial_uid], rules)
    assert choice is not None, rule  # noqa: S101
    members = choice.members
    logits = combine_logits([test_logits[each.trial.trial_uid] for each in members], [each.weight for each in members])
    scores = compute_metrics(softmax(logits), labels)
    return {
        "expected": choice.estimate.score.mean,
        "standard_error": choice.estimate.score.standard_error,
        "uncorrected": Images(choice.labels, np.arange(len(choice.labels)))
        .estimate((choice.logits.argmax(axis=1) == choice.labels).astype(np.float64))
        .mean,
        "accuracy": scores.accuracy,
        "balanced_accuracy": scores.balanced_accuracy,
        "loss": scores.loss,
        "latency_ms": sum(costs[member.trial.trial_uid].latency_ms for member in members),
        "members": len(members),
    }


def _print_tables(rows: Sequence[dict[str, Any]]) -> None:
    def mean(label: str, name: str, chosen: Sequence[dict[str, Any]]) -> float:
        """Return the mean over the data sets of the mean over their subsets."""
        values = [[row["rules"][label][name] for row in chosen if row["data"] == data] for data in _names(chosen)]
        return float(np.mean([np.mean(each) for each in values]))

    def coverage(label: str) -> float:
        """Return the share of subsets whose test score is within two standard errors of the expected one."""
        results = [row["rules"][label] for row in rows]
        gaps = [abs(each["expected"] - each["balanced_accuracy"]) / each["standard_error"] for each in results]
        return float(np.mean(np.array(gaps) < 2))

    columns = f"{'optimism':>9} {'uncorrected':>11} {'coverage':>8}"
    print(f"{'rule':30} {'bal. acc.':>9} {'loss':>7} {'ms':>6} {columns}  n={len(rows)}")
    for label in (rule.label for rule in RULES):
        score, expected = mean(label, "balanced_accuracy", rows), mean(label, "expected", rows)
        print(
            f"{label:30} {score:9.4f} {mean(label, 'loss', rows):7.4f} {mean(label, 'latency_ms', rows):6.1f} "
            f"{expected - score:+9.4f} {mean(label, 'uncorrected', rows) - score:+11.4f} {coverage(label):8.2f}"
        )
    for data in _names(rows):
        others, own = ([row for row in rows if (row["data"] == data) == is_own] for is_own in (False, True))
        if others:
            best = min((rule.label for rule in RULES), key=lambda label: mean(label, "loss", others))
            print(f"{data}: the others choose {best!r}: {mean(best, 'balanced_accuracy', own):.4f}")


def _names(rows: Sequence[dict[str, Any]]) -> list[str]:
    return sorted({row["data"] for row in rows})


def main() -> None:
    """Measure the missing subsets and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", help="data sets")
    parser.add_argument("--rows", type=Path, required=True, help="JSON Lines file of the results; it is continued")
    parser.add_argument("--seeds", type=int, default=5, help="subsets of each size")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = read_rows(arguments.rows)
    done = {(row["data"], row["images"], row["seed"]) for row in rows}
    for folder in arguments.folders:
        dataset = load_dataset(folder)
        cells = [
            (dataset.name, count, seed)
            for count, seed in itertools.product(NUM_IMAGES, range(arguments.seeds))
            if len(dataset.samples) - count >= MIN_TEST_IMAGES
        ]
        missing = [cell for cell in cells if cell not in done]
        probes = list(probes_of(dataset)) if missing else []
        for _, count, seed in missing:
            rows.append(measure(dataset, probes, count, seed))
            append_row(arguments.rows, rows[-1])
            print(dataset.name, count, seed, flush=True)
    _print_tables(rows)


if __name__ == "__main__":
    main()
